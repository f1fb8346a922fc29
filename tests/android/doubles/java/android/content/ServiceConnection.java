package android.content;

import android.os.IBinder;

public interface ServiceConnection {
  void onServiceConnected(ComponentName name, IBinder door);

  void onServiceDisconnected(ComponentName name);
}
