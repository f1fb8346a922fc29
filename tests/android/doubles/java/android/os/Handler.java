package android.os;

import org.ftte.doubles.Phone;

public class Handler {
  public Handler(Looper looper) {}

  public final boolean post(Runnable work) {
    Phone.now.post(work, 0);
    return true;
  }

  public final boolean postDelayed(Runnable work, long millis) {
    Phone.now.post(work, millis);
    return true;
  }

  public final void removeCallbacks(Runnable work) {
    Phone.now.remove(work);
  }
}
