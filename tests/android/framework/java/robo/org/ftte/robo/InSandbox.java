package org.ftte.robo;

import java.io.File;
import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;
import org.robolectric.annotation.SQLiteMode;

/** Comes back into Python on the main thread of Robolectric's sandbox. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = Config.ALL_SDKS)
@GraphicsMode(GraphicsMode.Mode.LEGACY)
@SQLiteMode(SQLiteMode.Mode.LEGACY)
public class InSandbox {
  @Test
  public void enter() throws Exception {
    // The app's classes lie in the sandbox's loader only: as on ART, the system's loader does not find them.
    Method add = URLClassLoader.class.getDeclaredMethod("addURL", URL.class);
    add.setAccessible(true);
    add.invoke(InSandbox.class.getClassLoader(), new File(System.getProperty("ftte.app")).toURI().toURL());
    Gate.enter("");
  }
}
