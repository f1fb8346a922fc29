package org.pytorch.executorch;

/** The archive's dtypes, as far as a double needs them. */
public enum DType {
  UINT8(0),
  INT8(1),
  INT16(2),
  INT32(3),
  INT64(4),
  HALF(5),
  FLOAT(6),
  DOUBLE(7),
  BOOL(11);

  public final int jniCode;

  DType(int code) {
    jniCode = code;
  }
}
