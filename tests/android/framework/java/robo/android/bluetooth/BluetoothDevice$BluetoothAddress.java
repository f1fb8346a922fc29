package android.bluetooth;

/** Of API 36: Robolectric's shadow of the device names it, and would not link at levels 31 to 35 without it. */
public class BluetoothDevice$BluetoothAddress {}
