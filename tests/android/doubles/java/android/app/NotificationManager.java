package android.app;

import org.ftte.doubles.Phone;

public class NotificationManager {
  public static final int IMPORTANCE_NONE = 0;
  public static final int IMPORTANCE_LOW = 2;

  public void createNotificationChannel(NotificationChannel channel) {
    Phone.now.channels.put(channel.id, channel.importance);
  }

  public void notify(int id, Notification notification) {
    Phone.now.shown.put(id, notification);
  }
}
