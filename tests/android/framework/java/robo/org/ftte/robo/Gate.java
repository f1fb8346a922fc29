package org.ftte.robo;

/** The way from Java into Python; see gate.c. */
public class Gate {
  static {
    System.load(System.getProperty("ftte.gate"));
  }

  public static native void enter(String what);
}
