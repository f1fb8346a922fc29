package org.ftte.demo;

import android.content.Context;
import android.content.Intent;
import android.os.Binder;
import android.os.Bundle;
import android.os.Handler;
import android.os.IBinder;
import android.os.Looper;
import android.util.Log;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.kivy.android.PythonService;

/**
 * The trainer's process: python-for-android's service with the life cycle that Android demands.
 *
 * <p>It runs in one of two ways. Started by the app it is a foreground service with a notification ("train now").
 * Bound by {@link VisitJob} it makes one visit within the minutes of a job. It is never sticky: what the system or the
 * user has ended begins again by the job or in the app, since Android 12 refuses a foreground service that a restart in
 * the background would need.
 *
 * <p>Python calls the methods without overloads of this class, so that no argument is converted to the wrong type.
 */
public class TrainingService extends PythonService {
  static final String ACTION_STOP = "org.ftte.demo.STOP";

  /** How long Python may take to end in good order; then the process goes. */
  static final long GRACE_MILLIS = 10_000;
  /** The same after the system's time is up: it allows a few seconds. */
  static final long TIMEOUT_GRACE_MILLIS = 3_000;

  private static final String TAG = "ftte";

  /** The service of this process; null in other processes. */
  public static volatile TrainingService current;

  private final Handler main = new Handler(Looper.getMainLooper());
  private Notice notice;
  private Locks locks;
  private volatile VisitJob visit;
  private Runnable stop;
  private volatile String stopReason = "";
  private boolean running;
  private volatile boolean foreground;

  /** What a job gets when it binds the service, in the same process. */
  final class Door extends Binder {
    TrainingService service() {
      return TrainingService.this;
    }
  }

  @Override
  public void onCreate() {
    super.onCreate();
    notice = new Notice(this);
    locks = new Locks(this);
    current = this;
  }

  @Override
  public int onStartCommand(Intent intent, int flags, int startId) {
    if (intent == null || ACTION_STOP.equals(intent.getAction())) {
      if (running) {
        requestStop("stopped", GRACE_MILLIS);
      } else {
        stopSelf(startId);
      }
      return START_NOT_STICKY;
    }
    // Before Python: a quick trainer's notification must not be replaced by the first one.
    if (!enterForeground(intent.getExtras())) {
      stopSelf(startId); // a visit that is under way goes on: its job keeps the service
      return START_NOT_STICKY;
    }
    if (visit != null) {
      visit.done(false); // the job's minutes do not bind any more
      visit = null;
    }
    runPython(intent);
    return START_NOT_STICKY;
  }

  @Override
  public IBinder onBind(Intent intent) {
    return new Door();
  }

  /** A job asks for a visit; false if training is under way already. Main thread. */
  boolean beginVisit(VisitJob job, Intent intent) {
    if (running) {
      return false;
    }
    visit = job;
    runPython(intent);
    return true;
  }

  private void runPython(Intent intent) {
    running = true;
    super.onStartCommand(intent, 0, 0);
  }

  /** Done before Python starts, by {@link #enterForeground}. */
  @Override
  protected void doStartForeground(Bundle extras) {}

  private boolean enterForeground(Bundle extras) {
    try {
      notice.startForeground(extras.getString("contentTitle"), extras.getString("contentText"));
      foreground = true;
    } catch (RuntimeException refused) {
      // Android 12: ForegroundServiceStartNotAllowedException in the background. Android 14: SecurityException.
      Log.w(TAG, "the system refuses a foreground service now: " + refused);
      Rest.write(getFilesDir(), "refused");
    }
    return foreground;
  }

  /** Swiping the app away does not end training; the notification's button does. */
  @Override
  public void onTaskRemoved(Intent rootIntent) {}

  /** Android 15: the day's six hours of a data-sync service are used up. Not ending now would be a crash. */
  @Override
  public void onTimeout(int startId, int type) {
    Rest.write(getFilesDir(), "limit");
    requestStop("limit", TIMEOUT_GRACE_MILLIS);
  }

  @Override
  public void onDestroy() {
    locks.release();
    current = null;
    super.onDestroy(); // ends the process
  }

  /** Ask Python to end, and end without it after a while. Main thread. */
  void requestStop(String reason, long graceMillis) {
    if (stopReason.isEmpty()) {
      stopReason = reason;
    }
    main.postDelayed(this::finish, graceMillis);
    if (stop != null) {
      stop.run();
    }
  }

  private void finish() {
    locks.release();
    if (visit != null) {
      visit.done(false); // the job is periodic: the next visit follows by itself
      visit = null;
    }
    if (foreground) {
      stopForeground(STOP_FOREGROUND_REMOVE);
    }
    stopSelf();
  }

  // What Python calls, in threads of its own.

  /** Call this when training is to end; at once if that was asked for before. */
  public void onStop(Runnable asked) {
    main.post(
        () -> {
          stop = asked;
          if (!stopReason.isEmpty()) {
            asked.run();
          }
        });
  }

  /** Why the system or the user ended training: "stopped", "limit", "job", or empty. */
  public String stopReason() {
    return stopReason;
  }

  /** Whether a job asked for one visit, and nobody for more. */
  public boolean isVisit() {
    return visit != null;
  }

  /** The notification's line, bar (none where of is 0) and button. */
  public void show(String text, int done, int of, String stopText) {
    if (foreground) {
      notice.show(text, done, of, stopText);
    }
  }

  /** Keep the processor awake for an assignment, at most so long; the Wi-Fi too, if it must be Wi-Fi. */
  public void work(boolean wifi, long millis) {
    locks.acquire(wifi, millis);
  }

  /** Let it sleep. */
  public void rest() {
    locks.release();
  }

  /** The phone's language, such as "es". */
  public String language() {
    return language(this);
  }

  /** The language of a context's configuration: C is the only locale of Android's C library. */
  public static String language(Context context) {
    return context.getResources().getConfiguration().getLocales().get(0).getLanguage();
  }

  /** Python has ended its work and has nothing open: end the service; returns when a job's end has been told. */
  public void end() throws InterruptedException {
    final CountDownLatch told = new CountDownLatch(1);
    main.post(
        () -> {
          finish();
          main.post(told::countDown); // behind the message that JobService sends itself
        });
    told.await(2, TimeUnit.SECONDS);
  }
}
