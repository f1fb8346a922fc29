package org.ftte.demo;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** Why no training is under way, for the app to say; Python writes the same file (ftte_demo/rest.py). */
final class Rest {
  private Rest() {}

  static void write(File folder, String why) {
    try (FileOutputStream out = new FileOutputStream(new File(folder, "rest.json"))) {
      out.write(("{\"why\": \"" + why + "\"}").getBytes(StandardCharsets.UTF_8));
    } catch (IOException full) {
      // The app then says only that the trainer is not there.
    }
  }
}
