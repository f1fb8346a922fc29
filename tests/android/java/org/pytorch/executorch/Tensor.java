package org.pytorch.executorch;

import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;

/** The archive's Tensor: direct buffers in native order, never copied; the same overloads of fromBlob, and its checks. */
public final class Tensor {
  private final Buffer data;
  private final long[] shape;
  private final DType dtype;

  private Tensor(Buffer data, long[] shape, DType dtype) {
    this.data = data;
    this.shape = shape.clone();
    this.dtype = dtype;
  }

  public long[] shape() {
    return shape.clone();
  }

  public long numel() {
    return numel(shape);
  }

  public DType dtype() {
    return dtype;
  }

  public Buffer getRawDataBuffer() {
    if (dtype == DType.BOOL) {
      throw new IllegalStateException("Tensor of type Tensor_unsupported cannot return raw data buffer.");
    }
    return data;
  }

  public static long numel(long[] shape) {
    long count = 1;
    for (long size : shape) {
      count *= size;
    }
    return count;
  }

  public static Tensor fromBlob(float[] data, long[] shape) {
    FloatBuffer buffer = direct(4 * data.length).asFloatBuffer();
    buffer.put(data);
    return fromBlob(buffer, shape);
  }

  public static Tensor fromBlob(long[] data, long[] shape) {
    LongBuffer buffer = direct(8 * data.length).asLongBuffer();
    buffer.put(data);
    return fromBlob(buffer, shape);
  }

  public static Tensor fromBlob(byte[] data, long[] shape) {
    ByteBuffer buffer = direct(data.length);
    buffer.put(data);
    return fromBlob(buffer, shape);
  }

  public static Tensor fromBlobUnsigned(ByteBuffer data, long[] shape) {
    return checked(data, data.order(), shape, DType.UINT8);
  }

  public static Tensor fromBlob(ByteBuffer data, long[] shape) {
    return checked(data, data.order(), shape, DType.INT8);
  }

  public static Tensor fromBlob(IntBuffer data, long[] shape) {
    return checked(data, data.order(), shape, DType.INT32);
  }

  public static Tensor fromBlob(FloatBuffer data, long[] shape) {
    return checked(data, data.order(), shape, DType.FLOAT);
  }

  public static Tensor fromBlob(LongBuffer data, long[] shape) {
    return checked(data, data.order(), shape, DType.INT64);
  }

  public static Tensor fromBlob(DoubleBuffer data, long[] shape) {
    return checked(data, data.order(), shape, DType.DOUBLE);
  }

  private static ByteBuffer direct(int bytes) {
    return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
  }

  private static Tensor checked(Buffer data, ByteOrder order, long[] shape, DType dtype) {
    if (numel(shape) != data.capacity()) {
      throw new IllegalArgumentException(
          "Inconsistent data capacity:" + data.capacity() + " and shape number elements:" + numel(shape));
    }
    if (!data.isDirect()) {
      throw new IllegalArgumentException("Data buffer must be direct (java.nio.ByteBuffer#allocateDirect)");
    }
    if (order != ByteOrder.nativeOrder()) {
      throw new IllegalArgumentException("Data buffer must have native byte order");
    }
    return new Tensor(data, shape, dtype);
  }

  /** Called from native code: a tensor over the runtime's own memory. */
  static Tensor nativeNewTensor(ByteBuffer data, long[] shape, int code) {
    data.order(ByteOrder.nativeOrder());
    switch (code) {
      case 6:
        return new Tensor(data.asFloatBuffer(), shape, DType.FLOAT);
      case 4:
        return new Tensor(data.asLongBuffer(), shape, DType.INT64);
      case 3:
        return new Tensor(data.asIntBuffer(), shape, DType.INT32);
      case 0:
        return new Tensor(data, shape, DType.UINT8);
      default:
        return new Tensor(data, shape, DType.BOOL);
    }
  }
}
