package org.ftte.demo;

import android.app.Notification;
import android.app.NotificationChannel;
import android.app.NotificationManager;
import android.app.PendingIntent;
import android.app.Service;
import android.content.Context;
import android.content.Intent;
import android.content.pm.ServiceInfo;
import android.graphics.drawable.Icon;
import android.os.Build;
import org.kivy.android.PythonActivity;

/** The notification of the foreground service: a line, a bar, a button that stops it. One channel, the app's. */
final class Notice {
  static final String CHANNEL = "org.ftte.demo.training";
  static final int ID = 1;

  private final Service service;
  private final NotificationManager manager;
  private String shown = "";

  Notice(Service service) {
    this.service = service;
    manager = (NotificationManager) service.getSystemService(Context.NOTIFICATION_SERVICE);
  }

  /** Become a foreground service. RuntimeException where the system refuses it. */
  void startForeground(String title, String text) {
    manager.createNotificationChannel(new NotificationChannel(CHANNEL, "FTTE", NotificationManager.IMPORTANCE_LOW));
    Notification first = builder(title, text).build();
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) {
      Api29.startForeground(service, first);
    } else {
      service.startForeground(ID, first);
    }
  }

  /** Show how far it is; the same again is not sent. */
  synchronized void show(String text, int done, int of, String stopText) {
    String now = text + "\n" + done + "/" + of + "\n" + stopText;
    if (now.equals(shown)) {
      return;
    }
    shown = now;
    // To this service alone, and what is in it cannot be changed: no other app can send it.
    Intent stop = new Intent(service, service.getClass()).setAction(TrainingService.ACTION_STOP);
    PendingIntent pressed = PendingIntent.getService(service, 0, stop, flags());
    manager.notify(
        ID,
        builder("FTTE", text)
            .setProgress(of, done, false)
            .addAction(new Notification.Action.Builder((Icon) null, stopText, pressed).build())
            .build());
  }

  private Notification.Builder builder(String title, String text) {
    Intent open = new Intent(service, PythonActivity.class);
    return new Notification.Builder(service, CHANNEL)
        .setContentTitle(title)
        .setContentText(text)
        .setSmallIcon(service.getApplicationInfo().icon)
        .setOngoing(true)
        .setOnlyAlertOnce(true)
        .setContentIntent(PendingIntent.getActivity(service, 0, open, flags()));
  }

  private static int flags() {
    return PendingIntent.FLAG_IMMUTABLE | PendingIntent.FLAG_UPDATE_CURRENT;
  }

  /** Since Android 10; obligatory since 14. */
  private static final class Api29 {
    static void startForeground(Service service, Notification notification) {
      service.startForeground(ID, notification, ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC);
    }
  }
}
