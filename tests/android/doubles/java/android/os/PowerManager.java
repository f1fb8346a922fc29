package android.os;

import org.ftte.doubles.Phone;

public class PowerManager {
  public static final int PARTIAL_WAKE_LOCK = 1;

  public WakeLock newWakeLock(int kind, String tag) {
    return new WakeLock();
  }

  public class WakeLock {
    private final Runnable timeout = this::release;

    public void setReferenceCounted(boolean yes) {}

    public void acquire(long millis) {
      Phone.now.remove(timeout);
      Phone.now.awake.remove(this);
      Phone.now.awake.add(this);
      Phone.now.post(timeout, millis);
    }

    public void release() {
      Phone.now.remove(timeout);
      Phone.now.awake.remove(this);
    }

    public boolean isHeld() {
      return Phone.now.awake.contains(this);
    }
  }
}
