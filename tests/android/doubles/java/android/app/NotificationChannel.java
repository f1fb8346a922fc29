package android.app;

public class NotificationChannel {
  public final String id;
  public final int importance;

  public NotificationChannel(String id, CharSequence name, int importance) {
    this.id = id;
    this.importance = importance;
  }

  public void setLightColor(int color) {}

  public void setLockscreenVisibility(int visibility) {}
}
