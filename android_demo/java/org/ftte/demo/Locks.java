package org.ftte.demo;

import android.content.Context;
import android.net.wifi.WifiManager;
import android.os.Build;
import android.os.Handler;
import android.os.Looper;
import android.os.PowerManager;

/**
 * Keeps the processor, and where asked the Wi-Fi, awake for an assignment: a foreground service keeps the process only.
 *
 * <p>Both locks end by themselves. Acquiring again prolongs them.
 */
final class Locks {
  private final PowerManager.WakeLock processor;
  private final WifiManager.WifiLock wifi;
  private final Handler main = new Handler(Looper.getMainLooper());
  private final Runnable timeout = this::release;

  Locks(Context context) {
    PowerManager power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
    processor = power.newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "ftte:training");
    processor.setReferenceCounted(false);
    // The application's context: before Android 7 an activity's leaked, and lint still asks for it.
    WifiManager manager = (WifiManager) context.getApplicationContext().getSystemService(Context.WIFI_SERVICE);
    wifi = manager == null ? null : manager.createWifiLock(mode(Build.VERSION.SDK_INT), "ftte:training");
    if (wifi != null) {
      wifi.setReferenceCounted(false);
    }
  }

  /** High performance until Android 14 made it an alias of low latency (value 4 since Android 10). */
  static int mode(int level) {
    return level >= 34 ? 4 : WifiManager.WIFI_MODE_FULL_HIGH_PERF;
  }

  synchronized void acquire(boolean withWifi, long millis) {
    processor.acquire(millis);
    main.removeCallbacks(timeout);
    main.postDelayed(timeout, millis); // Wi-Fi locks know no timeout
    if (withWifi && wifi != null && !wifi.isHeld()) {
      wifi.acquire();
    }
  }

  synchronized void release() {
    main.removeCallbacks(timeout);
    if (processor.isHeld()) {
      processor.release();
    }
    if (wifi != null && wifi.isHeld()) {
      wifi.release();
    }
  }
}
