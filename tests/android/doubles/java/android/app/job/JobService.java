package android.app.job;

import android.app.Service;
import android.content.Intent;
import android.os.IBinder;
import org.ftte.doubles.Phone;

public abstract class JobService extends Service {
  @Override
  public final IBinder onBind(Intent intent) {
    return null;
  }

  public abstract boolean onStartJob(JobParameters parameters);

  public abstract boolean onStopJob(JobParameters parameters);

  /** As there: by a message to the main thread, which a process that ends at once never sends. */
  public final void jobFinished(JobParameters parameters, boolean again) {
    Phone.now.post(() -> Phone.now.finished(this, again), 0);
  }
}
