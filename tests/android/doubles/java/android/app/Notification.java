package android.app;

import android.content.Context;
import android.graphics.drawable.Icon;

public class Notification {
  public static final int VISIBILITY_PRIVATE = 0;
  public String channel;
  public CharSequence title;
  public CharSequence text;
  public int done;
  public int of;
  public int icon;
  public PendingIntent open;
  public Action action;

  public Notification() {}

  public Notification(int icon, CharSequence text, long when) {}

  public static class Action {
    public CharSequence title;
    public PendingIntent pressed;

    public static class Builder {
      private final Action made = new Action();

      public Builder(Icon icon, CharSequence title, PendingIntent pressed) {
        made.title = title;
        made.pressed = pressed;
      }

      public Action build() {
        return made;
      }
    }
  }

  public static class Builder {
    private final Notification made = new Notification();

    public Builder(Context context, String channel) {
      made.channel = channel;
    }

    public Builder setContentTitle(CharSequence title) {
      made.title = title;
      return this;
    }

    public Builder setContentText(CharSequence text) {
      made.text = text;
      return this;
    }

    public Builder setSmallIcon(int icon) {
      made.icon = icon;
      return this;
    }

    public Builder setOngoing(boolean yes) {
      return this;
    }

    public Builder setOnlyAlertOnce(boolean yes) {
      return this;
    }

    public Builder setContentIntent(PendingIntent open) {
      made.open = open;
      return this;
    }

    public Builder setProgress(int of, int done, boolean unknown) {
      made.of = of;
      made.done = done;
      return this;
    }

    public Builder addAction(Action action) {
      made.action = action;
      return this;
    }

    public Notification build() {
      return made;
    }
  }
}
