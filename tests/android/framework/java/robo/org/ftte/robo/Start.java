package org.ftte.robo;

import org.junit.runner.JUnitCore;
import org.junit.runner.Result;
import org.junit.runner.notification.Failure;

/** Called from Python, outside the sandbox. */
public class Start {
  public static String run(String test) throws Exception {
    Result result = JUnitCore.runClasses(Class.forName(test));
    StringBuilder text = new StringBuilder();
    for (Failure failure : result.getFailures()) {
      text.append(failure.getTrace()).append('\n');
    }
    return text.toString();
  }
}
