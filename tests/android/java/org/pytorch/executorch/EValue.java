package org.pytorch.executorch;

/** The archive's EValue, as far as it holds tensors. */
public final class EValue {
  public final int mTypeCode;
  public Object mData;

  private EValue(int code, Object data) {
    mTypeCode = code;
    mData = data;
  }

  public static EValue from(Tensor tensor) {
    return new EValue(1, tensor);
  }

  public static EValue from(boolean value) {
    return new EValue(5, value);
  }

  public static EValue from(long value) {
    return new EValue(4, value);
  }

  public static EValue from(double value) {
    return new EValue(3, value);
  }

  public static EValue from(String value) {
    return new EValue(2, value);
  }

  public boolean isTensor() {
    return mTypeCode == 1;
  }

  public Tensor toTensor() {
    if (mTypeCode != 1) {
      throw new IllegalStateException("Expected EValue type Tensor, actual type " + mTypeCode);
    }
    return (Tensor) mData;
  }
}
