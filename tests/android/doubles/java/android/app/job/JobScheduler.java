package android.app.job;

import org.ftte.doubles.Phone;

public class JobScheduler {
  public static final int RESULT_SUCCESS = 1;

  public int schedule(JobInfo job) {
    return Phone.now.schedule(job);
  }

  public void cancel(int id) {
    Phone.now.jobs.remove(id);
  }

  public JobInfo getPendingJob(int id) {
    return Phone.now.jobs.get(id);
  }
}
