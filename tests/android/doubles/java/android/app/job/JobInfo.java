package android.app.job;

import android.content.ComponentName;
import android.os.PersistableBundle;

public class JobInfo {
  public static final int NETWORK_TYPE_ANY = 1;
  public static final int NETWORK_TYPE_UNMETERED = 2;
  public int id;
  public ComponentName service;
  public int network;
  public boolean charging;
  public boolean battery;
  public boolean idle;
  public boolean persisted;
  public long period;
  private PersistableBundle extras = new PersistableBundle();

  public PersistableBundle getExtras() {
    return extras;
  }

  public static class Builder {
    private final JobInfo made = new JobInfo();

    public Builder(int id, ComponentName service) {
      made.id = id;
      made.service = service;
    }

    public Builder setRequiredNetworkType(int network) {
      made.network = network;
      return this;
    }

    public Builder setRequiresCharging(boolean yes) {
      made.charging = yes;
      return this;
    }

    public Builder setRequiresBatteryNotLow(boolean yes) {
      made.battery = yes;
      return this;
    }

    public Builder setRequiresDeviceIdle(boolean yes) {
      made.idle = yes;
      return this;
    }

    public Builder setPeriodic(long period) {
      made.period = period;
      return this;
    }

    public Builder setPersisted(boolean yes) {
      made.persisted = yes;
      return this;
    }

    public Builder setExtras(PersistableBundle extras) {
      made.extras = extras;
      return this;
    }

    public JobInfo build() {
      if (made.period < 15 * 60 * 1000) {
        throw new IllegalArgumentException("a period below the least one");
      }
      return made;
    }
  }
}
