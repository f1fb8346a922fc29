package android.content;

public class ComponentName {
  public final Class<?> type;

  public ComponentName(Context context, Class<?> type) {
    this.type = type;
  }
}
