package org.example.trainer;

import android.content.Context;

public class ServiceTrainer {
  public static void prepare(Context ctx) {}

  public static void start(Context ctx, String pythonServiceArgument) {}

  public static void stop(Context ctx) {}
}
