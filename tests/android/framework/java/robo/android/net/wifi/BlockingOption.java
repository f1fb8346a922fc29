package android.net.wifi;

/** Of API 36: Robolectric's WifiManager names it, and would not link at older levels without it. */
public class BlockingOption {}
