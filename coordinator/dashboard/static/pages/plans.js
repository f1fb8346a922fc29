import { get, path } from "../api.js";
import { h, show, table } from "../dom.js";
import { bytes, count, percent } from "../format.js";
import { layerPicture } from "./parts.js";

export async function open({ main, name }) {
  const plans = await get(path("runs", name, "plans"));
  show(main, h("h1", {}, "Plans"),
    h("p", {}, `What each memory tier trains of ${count(plans.parameters)} parameters in ${plans.layers.length} layers, from the input to the output.`),
    h("section", { class: "card" }, layerPicture(plans, null)),
    h("h2", {}, "Tiers"),
    table("Tiers", [
      { head: "tier", cell: (tier) => tier.name },
      { head: "budget", number: true, cell: (tier) => bytes(tier.budget_bytes) },
      { head: "measured", number: true, cell: (tier) => bytes(tier.measured_bytes) },
      { head: "planned", number: true, cell: (tier) => bytes(tier.planned_bytes) },
      { head: "trains", number: true, cell: (tier) => `${count(tier.trained)} (${percent(tier.trained / plans.parameters)})` },
      { head: "update, float32", number: true, cell: (tier) => bytes(tier.update_bytes) },
      { head: "program", number: true, cell: (tier) => bytes(tier.program_bytes) },
      { head: "samples a step", number: true, cell: (tier) => tier.micro_batch },
    ], plans.tiers, "There are no tiers."),
    h("h2", {}, "Layers"),
    table("Layers", [
      { head: "layer", cell: ([layer]) => layer.name },
      { head: "parameters", number: true, cell: ([layer]) => count(layer.parameters) },
      ...plans.tiers.map((tier) => ({ head: tier.name, number: true, cell: ([, index]) => (tier.shares[index] ? percent(tier.shares[index]) : "frozen") })),
    ], plans.layers.map((layer, index) => [layer, index]), "There are no layers."));
}
