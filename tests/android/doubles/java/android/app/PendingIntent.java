package android.app;

import android.content.Context;
import android.content.Intent;
import org.ftte.doubles.Phone;

public class PendingIntent {
  public static final int FLAG_IMMUTABLE = 1 << 26;
  public static final int FLAG_UPDATE_CURRENT = 1 << 27;
  public final Intent intent;
  private final boolean service;

  private PendingIntent(Intent intent, int flags, boolean service) {
    if (Phone.now.level >= 31 && (flags & FLAG_IMMUTABLE) == 0) {
      throw new IllegalArgumentException("Targeting S+ requires one of FLAG_IMMUTABLE or FLAG_MUTABLE be specified");
    }
    this.intent = intent;
    this.service = service;
  }

  public static PendingIntent getActivity(Context context, int code, Intent intent, int flags) {
    return new PendingIntent(intent, flags, false);
  }

  public static PendingIntent getService(Context context, int code, Intent intent, int flags) {
    return new PendingIntent(intent, flags, true);
  }

  /** The user presses it. */
  public void press() {
    if (service) {
      Phone.now.start(intent.type, intent);
    }
  }
}
