package org.ftte.robo;

import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.app.Application;
import android.app.Notification;
import android.app.NotificationChannel;
import android.app.NotificationManager;
import android.app.PendingIntent;
import android.app.Service;
import android.app.job.JobInfo;
import android.app.job.JobParameters;
import android.app.job.JobScheduler;
import android.app.job.JobService;
import android.content.ComponentName;
import android.content.Context;
import android.content.Intent;
import android.content.pm.ApplicationInfo;
import android.content.pm.PackageManager;
import android.net.ConnectivityManager;
import android.net.NetworkCapabilities;
import android.net.NetworkInfo;
import android.os.BatteryManager;
import android.os.Build;
import android.os.Bundle;
import android.os.IBinder;
import android.os.PowerManager;
import java.lang.reflect.Field;
import java.util.Arrays;
import java.util.TreeSet;
import org.robolectric.Robolectric;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.android.controller.ServiceController;
import org.robolectric.shadows.ShadowActivity;
import org.robolectric.shadows.ShadowConnectivityManager;
import org.robolectric.shadows.ShadowJobService;
import org.robolectric.shadows.ShadowLooper;
import org.robolectric.shadows.ShadowNetworkCapabilities;
import org.robolectric.shadows.ShadowNetworkInfo;
import org.robolectric.shadows.ShadowPendingIntent;
import org.robolectric.shadows.ShadowPowerManager;

/** What the scenarios need of Robolectric, without overloads. Everything is called on Android's main thread. */
public class Kit {
  private static ServiceController<? extends Service> service;
  private static ActivityController<? extends Activity> activity;

  public static Application app() {
    return RuntimeEnvironment.getApplication();
  }

  /** Let the main thread do what is due. */
  public static void idle() {
    ShadowLooper.idleMainLooper();
  }

  /** Let so much of the main thread's time pass. */
  public static void elapse(long millis) {
    ShadowLooper.idleMainLooper(millis, java.util.concurrent.TimeUnit.MILLISECONDS);
  }

  @SuppressWarnings("unchecked")
  private static Class<? extends Service> service(String name) throws Exception {
    return (Class<? extends Service>) Class.forName(name, true, Kit.class.getClassLoader());
  }

  private static void libraries(ApplicationInfo info) {
    info.nativeLibraryDir = "/tmp";
    app().getApplicationInfo().nativeLibraryDir = "/tmp";
  }

  /** A new service of this class, created. */
  public static Service createService(String name, Intent intent) throws Exception {
    service = Robolectric.buildService(service(name), intent);
    service.create();
    libraries(service.get().getApplicationInfo());
    return service.get();
  }

  /** As startService() does in the system: the service's answer. */
  public static int command(Service started, Intent intent) {
    return started.onStartCommand(intent, 0, 1);
  }

  public static void destroyService(Service ended) {
    ended.onDestroy();
  }

  /** From now on, binding any service of the app binds this one. */
  public static void bindTo(Service bound, Intent intent) {
    IBinder door = bound.onBind(intent);
    shadowOf(app()).setComponentNameAndServiceForBindService(new ComponentName(app(), bound.getClass()), door);
  }

  public static JobService createJob(String name) throws Exception {
    return (JobService) Robolectric.buildService(service(name)).create().get();
  }

  /** The parameters of a job; their constructors are hidden and differ by level. */
  public static JobParameters parameters() throws Exception {
    Field field = Class.forName("sun.misc.Unsafe").getDeclaredField("theUnsafe");
    field.setAccessible(true);
    return (JobParameters) ((sun.misc.Unsafe) field.get(null)).allocateInstance(JobParameters.class);
  }

  public static boolean startJob(JobService job, JobParameters parameters) {
    return job.onStartJob(parameters);
  }

  public static boolean stopJob(JobService job, JobParameters parameters) {
    return job.onStopJob(parameters);
  }

  public static boolean jobFinished(JobService job) {
    return shadowOf(job).getIsJobFinished();
  }

  public static boolean jobAgain(JobService job) {
    return shadowOf(job).getIsRescheduleNeeded();
  }

  public static int unbound() {
    return shadowOf(app()).getUnboundServiceConnections().size();
  }

  /** The app's scheduled job in words; "none" if there is none. */
  public static String job() {
    JobScheduler scheduler = (JobScheduler) app().getSystemService(Context.JOB_SCHEDULER_SERVICE);
    StringBuilder text = new StringBuilder();
    for (JobInfo info : scheduler.getAllPendingJobs()) {
      text.append(info.getService().getClassName())
          .append(" charging=").append(info.isRequireCharging())
          .append(" network=").append(info.getNetworkType())
          .append(" battery=").append(info.isRequireBatteryNotLow())
          .append(" idle=").append(info.isRequireDeviceIdle())
          .append(" persisted=").append(info.isPersisted())
          .append(" minutes=").append(info.getIntervalMillis() / 60000);
    }
    return text.length() == 0 ? "none" : text.toString();
  }

  @SuppressWarnings("unchecked")
  public static Activity startActivity(String name, Intent intent) throws Exception {
    Class<? extends Activity> type =
        (Class<? extends Activity>) Class.forName(name, true, Kit.class.getClassLoader());
    activity = Robolectric.buildActivity(type, intent);
    libraries(activity.get().getApplicationInfo());
    activity.create().start().resume().visible();
    return activity.get();
  }

  public static void newIntent(Intent intent) {
    activity.newIntent(intent);
  }

  public static Notification foreground(Service s) {
    return shadowOf(s).getLastForegroundNotification();
  }

  public static int foregroundType(Service s) {
    return Build.VERSION.SDK_INT >= 29 ? s.getForegroundServiceType() : -1;
  }

  public static boolean stopped(Service s) {
    return shadowOf(s).isStoppedBySelf();
  }

  public static boolean foregroundStopped(Service s) {
    return shadowOf(s).isForegroundStopped();
  }

  private static NotificationManager manager() {
    return (NotificationManager) app().getSystemService(Context.NOTIFICATION_SERVICE);
  }

  public static Notification notification(int id) {
    return shadowOf(manager()).getNotification(id);
  }

  /** Ids and importances of all channels. */
  public static String channels() {
    StringBuilder text = new StringBuilder();
    for (NotificationChannel channel : manager().getNotificationChannels()) {
      text.append(channel.getId()).append('=').append(channel.getImportance()).append(' ');
    }
    return text.toString().trim();
  }

  /** Title, text, bar, channel, flags and actions of a notification. */
  public static String describe(Notification n) {
    if (n == null) {
      return "none";
    }
    Bundle x = n.extras;
    StringBuilder text = new StringBuilder();
    text.append("channel=").append(n.getChannelId())
        .append(" title=").append(x.getCharSequence("android.title"))
        .append(" text=").append(x.getCharSequence("android.text"))
        .append(" bar=").append(x.getInt("android.progress")).append('/').append(x.getInt("android.progressMax"))
        .append(" ongoing=").append((n.flags & Notification.FLAG_ONGOING_EVENT) != 0)
        .append(" icon=").append(n.getSmallIcon() != null)
        .append(" open=").append(pending(n.contentIntent));
    if (n.actions != null) {
      for (Notification.Action action : n.actions) {
        text.append(" action[").append(action.title).append(' ').append(pending(action.actionIntent)).append(']');
      }
    }
    return text.toString();
  }

  private static String pending(PendingIntent p) {
    if (p == null) {
      return "none";
    }
    ShadowPendingIntent s = shadowOf(p);
    String kind = s.isActivity() ? "activity" : s.isBroadcast() ? "broadcast" : "service";
    boolean fixed = (s.getFlags() & PendingIntent.FLAG_IMMUTABLE) != 0;
    return kind + (fixed ? " immutable" : " mutable") + " " + s.getSavedIntent().getComponent().getClassName();
  }

  /** Press a button: the intent that the system sends then. */
  public static Intent pressed(Notification n, int index) throws Exception {
    return shadowOf(n.actions[index].actionIntent).getSavedIntent();
  }

  public static int receivers() {
    int count = 0;
    for (Object o : shadowOf(app()).getRegisteredReceivers()) {
      count += o.toString().contains("org.kivy") ? 1 : 0;
    }
    return count;
  }

  /** What startService() sent last: class and extras. */
  public static String startedService() {
    Intent intent = shadowOf(app()).getNextStartedService();
    return intent == null ? "none" : intent.getComponent().getClassName() + " " + extras(intent);
  }

  private static String extras(Intent intent) {
    StringBuilder text = new StringBuilder();
    if (intent.getExtras() != null) {
      for (String key : new TreeSet<>(intent.getExtras().keySet())) {
        text.append(key).append('=').append(intent.getExtras().get(key)).append(", ");
      }
    }
    return text.toString();
  }

  /** The last letter of the text that the app shares through a chooser, as its number. */
  public static int shared() {
    Intent chooser = shadowOf(app()).getNextStartedActivity();
    Intent inner = chooser.getParcelableExtra(Intent.EXTRA_INTENT);
    String text = inner.getCharSequenceExtra(Intent.EXTRA_TEXT).toString();
    return text.codePointBefore(text.length());
  }

  // The state of the device.

  public static void battery(int level, boolean charging) {
    BatteryManager manager = (BatteryManager) app().getSystemService(Context.BATTERY_SERVICE);
    shadowOf(manager).setIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY, level);
    shadowOf(manager).setIsCharging(charging);
  }

  public static void metered(boolean yes) {
    ConnectivityManager manager = (ConnectivityManager) app().getSystemService(Context.CONNECTIVITY_SERVICE);
    ShadowConnectivityManager shadow = shadowOf(manager);
    NetworkCapabilities capabilities = ShadowNetworkCapabilities.newInstance();
    shadowOf(capabilities).addCapability(NetworkCapabilities.NET_CAPABILITY_INTERNET);
    shadowOf(capabilities)
        .addTransportType(yes ? NetworkCapabilities.TRANSPORT_CELLULAR : NetworkCapabilities.TRANSPORT_WIFI);
    if (!yes) {
      shadowOf(capabilities).addCapability(NetworkCapabilities.NET_CAPABILITY_NOT_METERED);
    }
    shadow.setNetworkCapabilities(manager.getActiveNetwork(), capabilities);
    int type = yes ? ConnectivityManager.TYPE_MOBILE : ConnectivityManager.TYPE_WIFI;
    shadow.setActiveNetworkInfo(
        ShadowNetworkInfo.newInstance(
            NetworkInfo.DetailedState.CONNECTED, type, 0, true, NetworkInfo.State.CONNECTED));
  }

  public static void interactive(boolean on) {
    shadowOf((PowerManager) app().getSystemService(Context.POWER_SERVICE)).turnScreenOn(on);
  }

  public static void thermal(int status) {
    if (Build.VERSION.SDK_INT >= 29) {
      shadowOf((PowerManager) app().getSystemService(Context.POWER_SERVICE)).setCurrentThermalStatus(status);
    }
  }

  /** Whether the newest wake lock is held. */
  public static boolean awake() {
    PowerManager.WakeLock lock = ShadowPowerManager.getLatestWakeLock();
    return lock != null && lock.isHeld();
  }

  public static int wifiLocks() {
    return shadowOf((android.net.wifi.WifiManager) app().getSystemService(Context.WIFI_SERVICE)).getActiveLockCount();
  }

  public static void language(String qualifier) {
    RuntimeEnvironment.setQualifiers("+" + qualifier);
  }

  public static String requested(Activity a) {
    ShadowActivity.PermissionsRequest request = shadowOf(a).getLastRequestedPermission();
    return request == null ? "none" : Arrays.toString(request.requestedPermissions);
  }

  /** The user's answer; interrupted: none, as Android says it with empty arrays. */
  public static void answerPermission(Activity a, boolean yes, boolean interrupted) {
    ShadowActivity.PermissionsRequest request = shadowOf(a).getLastRequestedPermission();
    int code = yes ? PackageManager.PERMISSION_GRANTED : PackageManager.PERMISSION_DENIED;
    a.onRequestPermissionsResult(
        request.requestCode,
        interrupted ? new String[0] : request.requestedPermissions,
        interrupted ? new int[0] : new int[] {code});
  }
}
