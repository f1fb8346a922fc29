package android.graphics;

public class Color {
  public static final int BLUE = 255;
}
