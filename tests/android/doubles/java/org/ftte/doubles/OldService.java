package org.ftte.doubles;

import android.content.Context;
import android.content.Intent;
import org.kivy.android.PythonService;

/** python-for-android's own service, sticky, as its template makes it. */
public class OldService extends PythonService {
  @Override
  public int startType() {
    return START_STICKY;
  }

  static Intent intent() {
    return new Intent(null, OldService.class)
        .putExtra("serviceStartAsForeground", "true")
        .putExtra("pythonServiceArgument", "");
  }

  @Override
  protected Intent getThisDefaultIntent(Context context, String argument) {
    return intent();
  }
}
