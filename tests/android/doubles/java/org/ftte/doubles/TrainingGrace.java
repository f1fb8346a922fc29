package org.ftte.doubles;

/** More than the service gives Python to end. */
final class TrainingGrace {
  static final long MILLIS = 15_000;

  private TrainingGrace() {}
}
