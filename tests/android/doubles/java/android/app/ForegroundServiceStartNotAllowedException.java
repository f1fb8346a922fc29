package android.app;

public class ForegroundServiceStartNotAllowedException extends IllegalStateException {
  public ForegroundServiceStartNotAllowedException(String message) {
    super(message);
  }
}
