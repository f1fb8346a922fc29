package android.content;

import android.os.Bundle;

public class Intent {
  public Class<?> type;
  private String action;
  private final Bundle extras = new Bundle();

  public Intent(Context context, Class<?> type) {
    this.type = type;
  }

  public Intent setAction(String action) {
    this.action = action;
    return this;
  }

  public String getAction() {
    return action;
  }

  public Intent putExtra(String name, String value) {
    extras.putString(name, value);
    return this;
  }

  public Bundle getExtras() {
    return extras;
  }
}
