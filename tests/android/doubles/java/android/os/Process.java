package android.os;

import org.ftte.doubles.Phone;

public class Process {
  public static int myPid() {
    return 1;
  }

  public static void killProcess(int pid) {
    Phone.now.exit();
  }
}
