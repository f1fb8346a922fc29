package android.content;

import android.app.NotificationManager;
import android.app.job.JobScheduler;
import android.content.pm.ApplicationInfo;
import android.content.res.Resources;
import android.net.wifi.WifiManager;
import android.os.PowerManager;
import java.io.File;
import java.util.HashMap;
import java.util.Map;
import org.ftte.doubles.Phone;

public class Context {
  public static final String NOTIFICATION_SERVICE = "notification";
  public static final String POWER_SERVICE = "power";
  public static final String WIFI_SERVICE = "wifi";
  public static final String JOB_SCHEDULER_SERVICE = "jobscheduler";
  public static final int BIND_AUTO_CREATE = 1;
  private static final Map<String, Object> SERVICES = new HashMap<>();

  static {
    SERVICES.put(NOTIFICATION_SERVICE, new NotificationManager());
    SERVICES.put(POWER_SERVICE, new PowerManager());
    SERVICES.put(WIFI_SERVICE, new WifiManager());
    SERVICES.put(JOB_SCHEDULER_SERVICE, new JobScheduler());
  }

  public Object getSystemService(String name) {
    return SERVICES.get(name);
  }

  public Context getApplicationContext() {
    return this;
  }

  public ApplicationInfo getApplicationInfo() {
    return new ApplicationInfo();
  }

  public Resources getResources() {
    return new Resources();
  }

  public String getPackageName() {
    return "org.ftte.demo";
  }

  public File getFilesDir() {
    return Phone.now.files;
  }

  public ComponentName startService(Intent intent) {
    Phone.now.start(intent.type, intent);
    return new ComponentName(this, intent.type);
  }

  public boolean stopService(Intent intent) {
    Phone.now.stop();
    return true;
  }

  public boolean bindService(Intent intent, ServiceConnection connection, int flags) {
    return Phone.now.bind(intent, connection);
  }

  public void unbindService(ServiceConnection connection) {
    Phone.now.unbind();
  }
}
