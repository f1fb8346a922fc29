package org.ftte.doubles;

/** In the place of python-for-android's native code: runs what a test wants, and ends the process as start.c does. */
public class Python {
  public static volatile Runnable script = () -> {};
  public static volatile int runs;

  public static void start(String argument) {
    Phone phone = Phone.now;
    runs++;
    script.run();
    phone.post(phone::exit, 0); // exit(): nothing of Java's runs behind it
    try {
      Thread.sleep(Long.MAX_VALUE);
    } catch (InterruptedException end) {
      // the test is over
    }
  }
}
