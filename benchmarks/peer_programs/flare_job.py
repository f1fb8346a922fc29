"""
Hand NVIDIA FLARE's edge example in as a job: ``python flare_job.py STARTUP_KIT DEVICES BUFFER VERSIONS``.

Runs in FLARE's environment. The net and the settings are those of its own example, but for the number of devices and
the buffer; the devices come from outside.
"""

from __future__ import annotations

import sys
import types
from typing import Any

# The recipe's module imports the evaluator, which needs torchvision; it is not used here.
for name in ("torchvision", "torchvision.datasets", "torchvision.transforms"):
    sys.modules.setdefault(name, types.ModuleType(name))
for name in ("datasets", "transforms"):
    setattr(sys.modules["torchvision"], name, sys.modules[f"torchvision.{name}"])

from flare_net import TrainingNet  # noqa: E402

BATCH = 4


def main() -> None:
    """Submit, and print the job's id."""
    import nvflare.edge.tools.et_fed_buff_recipe as edge
    from nvflare.recipe.prod_env import ProdEnv

    kit, (devices, buffer, versions) = sys.argv[1], map(int, sys.argv[2:])
    recipe: Any = edge.ETFedBuffRecipe(
        job_name="convnet",
        device_model=TrainingNet(),
        input_shape=(BATCH, 3, 32, 32),
        output_shape=(BATCH,),
        model_manager_config=edge.ModelManagerConfig(
            max_model_version=versions, num_updates_for_model=buffer, update_timeout=1000, max_model_history=1000
        ),
        device_manager_config=edge.DeviceManagerConfig(device_selection_size=devices, min_hole_to_fill=1),
        simulation_config=None,
        device_training_params={"epoch": 1, "lr": 0.0001, "batch_size": BATCH},
    )
    run = recipe.execute(ProdEnv(startup_kit_location=kit, username="admin@nvidia.com"))
    print("job", run.get_job_id(), flush=True)


if __name__ == "__main__":
    main()
