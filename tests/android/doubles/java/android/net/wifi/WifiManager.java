package android.net.wifi;

import org.ftte.doubles.Phone;

public class WifiManager {
  public static final int WIFI_MODE_FULL_HIGH_PERF = 3;

  public WifiLock createWifiLock(int mode, String tag) {
    return new WifiLock();
  }

  public class WifiLock {
    public void setReferenceCounted(boolean yes) {}

    public void acquire() {
      Phone.now.wifi.add(this);
    }

    public void release() {
      Phone.now.wifi.remove(this);
    }

    public boolean isHeld() {
      return Phone.now.wifi.contains(this);
    }
  }
}
