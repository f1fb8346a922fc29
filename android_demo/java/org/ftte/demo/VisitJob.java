package org.ftte.demo;

import android.app.job.JobInfo;
import android.app.job.JobParameters;
import android.app.job.JobScheduler;
import android.app.job.JobService;
import android.content.ComponentName;
import android.content.Context;
import android.content.Intent;
import android.content.ServiceConnection;
import android.os.IBinder;
import android.os.PersistableBundle;
import android.util.Log;

/**
 * Training that begins by itself: from time to time, when the phone's state allows it, one visit to the coordinator.
 *
 * <p>Runs in the service's process and binds the service, which Android allows from the background where it refuses to
 * start one. The job survives a reboot.
 */
public class VisitJob extends JobService {
  static final int ID = 1;
  /** The shortest period that Android grants. */
  static final long PERIOD_MILLIS = 15 * 60 * 1000;

  private static final String TAG = "ftte";

  private JobParameters job;
  private TrainingService service;
  private ServiceConnection connection;

  /**
   * See to it that visits are made while these hold; a job that demands the same stays as it is, for scheduling it
   * again would end one that is under way. False if the system refuses.
   */
  public static boolean schedule(
      Context context, boolean charging, boolean unmetered, boolean batteryNotLow, boolean idle) {
    JobScheduler scheduler = (JobScheduler) context.getSystemService(Context.JOB_SCHEDULER_SERVICE);
    int network = unmetered ? JobInfo.NETWORK_TYPE_UNMETERED : JobInfo.NETWORK_TYPE_ANY;
    String wanted = charging + " " + unmetered + " " + batteryNotLow + " " + idle;
    JobInfo pending = scheduler.getPendingJob(ID);
    if (pending != null && wanted.equals(pending.getExtras().getString("conditions"))) {
      return true;
    }
    PersistableBundle extras = new PersistableBundle();
    extras.putString("conditions", wanted);
    try {
      JobInfo info =
          new JobInfo.Builder(ID, new ComponentName(context, VisitJob.class))
              .setRequiredNetworkType(network)
              .setRequiresCharging(charging)
              .setRequiresBatteryNotLow(batteryNotLow)
              .setRequiresDeviceIdle(idle)
              .setPeriodic(PERIOD_MILLIS)
              .setPersisted(true)
              .setExtras(extras)
              .build();
      return scheduler.schedule(info) == JobScheduler.RESULT_SUCCESS;
    } catch (RuntimeException refused) { // too many jobs, say
      Log.w(TAG, "the system refuses the job: " + refused);
      return false;
    }
  }

  /** No visits any more. */
  public static void cancel(Context context) {
    ((JobScheduler) context.getSystemService(Context.JOB_SCHEDULER_SERVICE)).cancel(ID);
  }

  /** Whether visits are made. */
  public static boolean isScheduled(Context context) {
    return ((JobScheduler) context.getSystemService(Context.JOB_SCHEDULER_SERVICE)).getPendingJob(ID) != null;
  }

  @Override
  public boolean onStartJob(JobParameters params) {
    job = params;
    String folder = getFilesDir().getAbsolutePath();
    final Intent intent = ServiceTrainer.getDefaultIntent(this, "", "FTTE", "", folder);
    connection =
        new ServiceConnection() {
          @Override
          public void onServiceConnected(ComponentName name, IBinder door) {
            service = ((TrainingService.Door) door).service();
            if (!service.beginVisit(VisitJob.this, intent)) {
              done(false); // training is under way
            }
          }

          @Override
          public void onServiceDisconnected(ComponentName name) {}
        };
    if (!bindService(intent, connection, Context.BIND_AUTO_CREATE)) {
      connection = null;
      return false;
    }
    return true;
  }

  /** The minutes are over, or what the job demands holds no more: the checkpoint is on disk, the next visit goes on. */
  @Override
  public boolean onStopJob(JobParameters params) {
    job = null;
    if (service != null && service.isVisit()) {
      service.requestStop("job", TrainingService.TIMEOUT_GRACE_MILLIS);
    }
    return true;
  }

  /** The visit is over. Main thread. */
  void done(boolean again) {
    if (job != null) {
      jobFinished(job, again);
      job = null;
    }
    if (connection != null) {
      unbindService(connection);
      connection = null;
    }
  }
}
