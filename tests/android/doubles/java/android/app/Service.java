package android.app;

import android.content.Context;
import android.content.Intent;
import android.os.IBinder;
import org.ftte.doubles.Phone;

public abstract class Service extends Context {
  public static final int START_STICKY = 1;
  public static final int START_NOT_STICKY = 2;
  public static final int STOP_FOREGROUND_REMOVE = 1;

  public void onCreate() {}

  public int onStartCommand(Intent intent, int flags, int startId) {
    return START_STICKY;
  }

  public abstract IBinder onBind(Intent intent);

  public void onDestroy() {}

  public void onTaskRemoved(Intent intent) {}

  public void onTimeout(int startId, int type) {}

  public final void startForeground(int id, Notification notification) {
    Phone.now.startForeground(id, notification, 1);
  }

  public final void startForeground(int id, Notification notification, int type) {
    if (Phone.now.level < 29) {
      throw new NoSuchMethodError("startForeground(int, Notification, int)");
    }
    Phone.now.startForeground(id, notification, type);
  }

  public final void stopForeground(int how) {
    Phone.now.foreground = false;
  }

  public final void stopSelf() {
    Phone.now.stop();
  }

  public final void stopSelf(int startId) {
    Phone.now.stop();
  }
}
