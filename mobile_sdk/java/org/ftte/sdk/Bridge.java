package org.ftte.sdk;

import java.io.Closeable;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.channels.FileChannel;
import java.util.HashMap;
import java.util.Map;
import org.pytorch.executorch.EValue;
import org.pytorch.executorch.Module;
import org.pytorch.executorch.Tensor;

/**
 * One ExecuTorch program for Python, over the Android archive org.pytorch:executorch-android.
 *
 * <p>No method is overloaded and data travels as byte[] only: pyjnius picks the wrong overload of Tensor.fromBlob for
 * a list of floats, and converts lists 35 times slower than bytes. Inputs are named slots, shared by all methods of
 * the program: a slot is filled from bytes, or lies in a file that is mapped here, so that weights which do not change
 * take no memory of the process. One call at a time.
 *
 * <p>Compiled by the app's build against the archive; source and class files of Java 8. Calls whose result type was
 * refined after Java 8 (ByteBuffer.position, FloatBuffer.clear) go through Buffer, or they would not be found on older
 * devices.
 */
public final class Bridge implements Closeable {
  private final Module module;
  private final Map<String, Slot> slots = new HashMap<>();
  private EValue[] results = new EValue[0];

  /** Maps the program at path; a method is loaded when it first runs. */
  public Bridge(String path, int threads) {
    module = Module.load(path, Module.LOAD_MODE_MMAP, threads);
  }

  /** Names of the program's methods. */
  public String[] methods() {
    return module.getMethods();
  }

  /** Declare an input: dtype is float32, int64, int32 or uint8, and shape is as in "16,3,32,32". */
  public void slot(String name, String dtype, String shape) {
    slots.put(name, new Slot(dtype, shape));
  }

  /** Fill a slot with elements in native byte order. */
  public void put(String name, byte[] data) {
    slots.get(name).put(data);
  }

  /** Let a slot lie in a file, from this offset on. */
  public void map(String name, String path, long offset) throws IOException {
    slots.get(name).map(path, offset);
  }

  /**
   * Run a method on slots, whose names are joined by newlines; returns the number of its outputs. One text, since pyjnius
   * leaks a local reference for every String[] that it passes.
   */
  public int run(String method, String inputs) {
    String[] names = inputs.isEmpty() ? new String[0] : inputs.split("\n");
    EValue[] values = new EValue[names.length];
    for (int i = 0; i < names.length; i++) {
      values[i] = EValue.from(slots.get(names[i]).tensor);
    }
    results = module.execute(method, values);
    return results.length;
  }

  /** Copy of an output of the last run, in native byte order. Outputs lie in the program's arena until the next. */
  public byte[] output(int index) {
    Buffer raw = results[index].toTensor().getRawDataBuffer();
    raw.rewind();
    if (raw instanceof FloatBuffer) {
      byte[] data = new byte[4 * raw.remaining()];
      ByteBuffer.wrap(data).order(ByteOrder.nativeOrder()).asFloatBuffer().put((FloatBuffer) raw);
      return data;
    }
    if (raw instanceof LongBuffer) {
      byte[] data = new byte[8 * raw.remaining()];
      ByteBuffer.wrap(data).order(ByteOrder.nativeOrder()).asLongBuffer().put((LongBuffer) raw);
      return data;
    }
    if (raw instanceof IntBuffer) {
      byte[] data = new byte[4 * raw.remaining()];
      ByteBuffer.wrap(data).order(ByteOrder.nativeOrder()).asIntBuffer().put((IntBuffer) raw);
      return data;
    }
    byte[] data = new byte[raw.remaining()];
    ((ByteBuffer) raw).get(data);
    return data;
  }

  /** Free the program; its outputs are gone with it. */
  @Override
  public void close() {
    results = new EValue[0];
    slots.clear();
    module.destroy();
  }

  private static final class Slot {
    private final String dtype;
    private final long[] shape;
    private final int bytes;
    private ByteBuffer own;
    Tensor tensor;

    Slot(String dtype, String shape) {
      this.dtype = dtype;
      String[] sizes = shape.isEmpty() ? new String[0] : shape.split(",");
      this.shape = new long[sizes.length];
      long count = "int64".equals(dtype) ? 8 : "uint8".equals(dtype) ? 1 : 4;
      for (int i = 0; i < sizes.length; i++) {
        this.shape[i] = Long.parseLong(sizes[i]);
        count = Math.multiplyExact(count, this.shape[i]);
      }
      bytes = (int) count;
      if (bytes != count) {
        throw new IllegalArgumentException(count + " bytes are more than a buffer holds");
      }
    }

    void put(byte[] data) {
      if (data.length != bytes) {
        throw new IllegalArgumentException(data.length + " bytes for " + bytes);
      }
      if (own == null) {
        own = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
        tensor = over(own);
      }
      ((Buffer) own).clear();
      own.put(data);
    }

    void map(String path, long offset) throws IOException {
      try (RandomAccessFile file = new RandomAccessFile(path, "r")) {
        // A map beyond the end would be a crash at the first access.
        if (offset < 0 || offset > file.length() - bytes) {
          throw new IOException(path + " has " + file.length() + " bytes, fewer than " + bytes + " from " + offset);
        }
        ByteBuffer mapped = file.getChannel().map(FileChannel.MapMode.READ_ONLY, offset, bytes);
        own = null;
        tensor = over(mapped.order(ByteOrder.nativeOrder()));
      }
    }

    private Tensor over(ByteBuffer data) {
      ((Buffer) data).clear();
      switch (dtype) {
        case "float32":
          return Tensor.fromBlob(data.asFloatBuffer(), shape);
        case "int64":
          return Tensor.fromBlob(data.asLongBuffer(), shape);
        case "int32":
          return Tensor.fromBlob(data.asIntBuffer(), shape);
        case "uint8":
          return Tensor.fromBlobUnsigned(data, shape);
        default:
          throw new IllegalArgumentException("no tensor of " + dtype);
      }
    }
  }
}
