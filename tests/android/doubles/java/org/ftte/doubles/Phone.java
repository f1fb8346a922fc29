package org.ftte.doubles;

import android.app.ForegroundServiceStartNotAllowedException;
import android.app.Notification;
import android.app.Service;
import android.app.job.JobInfo;
import android.app.job.JobParameters;
import android.app.job.JobService;
import android.content.ComponentName;
import android.content.Intent;
import android.content.ServiceConnection;
import android.os.IBinder;
import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BooleanSupplier;

/**
 * What Android's system server decides about one app's process, as far as the app's service and job meet it: when a
 * foreground service is refused, what happens after a process has ended, when jobs run, and what a lock keeps awake.
 *
 * <p>Time is virtual: the main thread does what is due when a test says so.
 */
public class Phone {
  public static Phone now;

  public final int level;
  /** Whether the app is in front: from Android 12 on, only then may a foreground service begin. */
  public boolean inFront = true;
  public long millis;
  public File files;
  public String language = "en";
  /** The service of the app's process, if there is one. */
  public Service service;
  public boolean started;
  public int startType;
  public boolean foreground;
  public int bound;
  public boolean processEnded;
  /** What would be a crash dialog, or a crash in the background, of a real phone. */
  public final List<String> crashes = new ArrayList<>();
  public final Map<Integer, Notification> shown = new HashMap<>();
  public final Map<String, Integer> channels = new HashMap<>();
  public final Map<Integer, JobInfo> jobs = new HashMap<>();
  public int schedules;
  public JobService runningJob;
  public Boolean jobAgain;
  public final List<Object> awake = new ArrayList<>();
  public final List<Object> wifi = new ArrayList<>();
  private final List<Object[]> queue = new ArrayList<>();
  private int startId;
  /** Processes so far. */
  public volatile int created;

  public Phone(int level, File files) {
    this.level = level;
    this.files = files;
    android.os.Build.VERSION.SDK_INT = level;
    now = this;
  }

  public synchronized void post(Runnable work, long delay) {
    queue.add(new Object[] {millis + delay, work});
    notifyAll();
  }

  public synchronized void remove(Runnable work) {
    queue.removeIf(entry -> entry[1] == work);
  }

  private synchronized Runnable due() {
    Object[] first = null;
    for (Object[] entry : queue) {
      if ((Long) entry[0] <= millis && (first == null || (Long) entry[0] < (Long) first[0])) {
        first = entry;
      }
    }
    if (first == null) {
      return null;
    }
    queue.remove(first);
    return (Runnable) first[1];
  }

  /** The main thread does what is due. A process that has ended does nothing. */
  public void idle() {
    for (Runnable work; !processEnded && (work = due()) != null; ) {
      work.run();
    }
  }

  /** Time passes. */
  public void pass(long wanted) {
    for (long end = millis + wanted; millis < end; ) {
      millis = Math.min(end, millis + 1000);
      idle();
    }
  }

  /** The main thread works until something holds that another thread brings about. */
  public void await(BooleanSupplier until, String what) throws InterruptedException {
    long limit = System.nanoTime() + 20_000_000_000L;
    while (!until.getAsBoolean()) {
      idle();
      if (System.nanoTime() > limit) {
        throw new AssertionError(what + " was awaited in vain; crashes: " + crashes);
      }
      synchronized (this) {
        if (queue.isEmpty()) {
          wait(20);
        }
      }
    }
  }

  private Service process(Class<?> type) {
    if (service == null) {
      try {
        service = (Service) type.getDeclaredConstructor().newInstance();
      } catch (ReflectiveOperationException impossible) {
        throw new AssertionError(impossible);
      }
      processEnded = false;
      created++;
      service.onCreate();
    }
    return service;
  }

  /** startService(), and the system's restart with a null intent. */
  public void start(Class<?> type, Intent intent) {
    try {
      started = true;
      startType = process(type).onStartCommand(intent, 0, ++startId);
    } catch (RuntimeException crash) {
      crashes.add(crash.toString());
      exit();
    }
  }

  public void startForeground(int id, Notification notification, int type) {
    if (level >= 31 && !inFront && !foreground) {
      throw new ForegroundServiceStartNotAllowedException(
          "startForegroundService() not allowed: mAllowStartForeground false");
    }
    if (level >= 34 && type != 1) {
      throw new SecurityException("Starting FGS without a type");
    }
    if (!channels.containsKey(notification.channel)) {
      throw new IllegalStateException("Bad notification for startForeground: invalid channel");
    }
    foreground = true;
    shown.put(id, notification);
  }

  public void stop() {
    started = false;
    destroyIfUnused();
  }

  private void destroyIfUnused() {
    if (service != null && !started && bound == 0) {
      Service gone = service;
      post(gone::onDestroy, 0);
    }
  }

  /** The process ends, by itself or killed: a sticky service is started again, in the background. */
  public void exit() {
    if (processEnded) {
      return;
    }
    processEnded = true;
    Class<?> type = service == null ? null : service.getClass();
    boolean again = started && startType == Service.START_STICKY;
    service = null;
    foreground = false;
    bound = 0;
    awake.clear();
    wifi.clear();
    shown.clear();
    synchronized (this) {
      queue.clear();
    }
    if (runningJob != null) {
      runningJob = null;
      jobAgain = true;
    }
    started = false;
    if (again && crashes.size() < 5) {
      inFront = false;
      start(type, null);
    }
  }

  /** Android 15: six hours are used up. A service that still runs after some seconds is a crash. */
  public void sixHours() {
    service.onTimeout(startId, 1);
    pass(5000);
    if (foreground && !processEnded) {
      crashes.add("ForegroundServiceDidNotStopInTimeException");
    }
  }

  public boolean bind(Intent intent, ServiceConnection connection) {
    Service target = process(intent.type);
    bound++;
    IBinder door = target.onBind(intent);
    post(() -> connection.onServiceConnected(new ComponentName(null, intent.type), door), 0);
    return true;
  }

  public void unbind() {
    bound--;
    destroyIfUnused();
  }

  public int schedule(JobInfo job) {
    if (job.persisted && !permissions.contains("RECEIVE_BOOT_COMPLETED")) {
      throw new IllegalArgumentException("Requested job cannot be persisted without RECEIVE_BOOT_COMPLETED permission");
    }
    if (jobs.containsKey(job.id) && runningJob != null) {
      stopJob(); // scheduling a job again ends the one that runs
    }
    schedules++;
    jobs.put(job.id, job);
    return 1;
  }

  public final List<String> permissions = new ArrayList<>(Arrays.asList("RECEIVE_BOOT_COMPLETED", "WAKE_LOCK"));

  /** The conditions of the job hold. */
  public void runJob() throws ReflectiveOperationException {
    JobInfo job = jobs.values().iterator().next();
    inFront = false;
    runningJob = (JobService) job.service.type.getDeclaredConstructor().newInstance();
    jobAgain = null;
    processEnded = false;
    if (!runningJob.onStartJob(new JobParameters())) {
      runningJob = null;
    }
    idle();
  }

  /** The job's minutes are over, or what it demands holds no more. */
  public void stopJob() {
    JobService job = runningJob;
    runningJob = null;
    jobAgain = job.onStopJob(new JobParameters());
  }

  public void finished(JobService job, boolean again) {
    if (runningJob == job) {
      runningJob = null;
      jobAgain = again;
    }
  }
}
