package org.pytorch.executorch;

import java.io.Closeable;
import java.io.File;
import java.nio.Buffer;
import java.util.concurrent.locks.ReentrantLock;

/** The archive's Module, over the same C++ module of the same runtime; see jni.cpp. */
public class Module implements Closeable {
  public static final int LOAD_MODE_FILE = 0;
  public static final int LOAD_MODE_MMAP = 1;
  public static final int LOAD_MODE_MMAP_USE_MLOCK = 2;
  public static final int LOAD_MODE_MMAP_USE_MLOCK_IGNORE_ERRORS = 3;

  static {
    System.load(System.getProperty("ftte.double"));
  }

  private final ReentrantLock lock = new ReentrantLock();
  private long handle;

  private Module(long handle) {
    this.handle = handle;
  }

  public static Module load(String path) {
    return load(path, LOAD_MODE_FILE, 0);
  }

  public static Module load(String path, int loadMode) {
    return load(path, loadMode, 0);
  }

  public static Module load(String path, int loadMode, int threads) {
    File file = new File(path);
    if (!file.canRead() || !file.isFile()) {
      throw new RuntimeException("Cannot load model path!! " + path);
    }
    return new Module(open(path, loadMode, threads));
  }

  public EValue[] forward(EValue... inputs) {
    return execute("forward", inputs);
  }

  public EValue[] execute(String method, EValue... inputs) {
    lock.lock();
    try {
      check();
      Buffer[] data = new Buffer[inputs.length];
      long[][] shapes = new long[inputs.length][];
      int[] dtypes = new int[inputs.length];
      for (int i = 0; i < inputs.length; i++) {
        Tensor tensor = inputs[i].toTensor();
        data[i] = tensor.getRawDataBuffer();
        shapes[i] = tensor.shape();
        dtypes[i] = tensor.dtype().jniCode;
      }
      Tensor[] outputs = execute(handle, method, data, shapes, dtypes);
      EValue[] values = new EValue[outputs.length];
      for (int i = 0; i < outputs.length; i++) {
        values[i] = EValue.from(outputs[i]);
      }
      return values;
    } finally {
      lock.unlock();
    }
  }

  public String[] getMethods() {
    check();
    return methods(handle);
  }

  public void destroy() {
    if (!lock.tryLock()) {
      throw new IllegalStateException("Cannot destroy module while method is executing");
    }
    try {
      if (handle != 0) {
        close(handle);
        handle = 0;
      }
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void close() {
    destroy();
  }

  private void check() {
    if (handle == 0) {
      throw new IllegalStateException("Module has been destroyed");
    }
  }

  private static native long open(String path, int loadMode, int threads);

  private static native String[] methods(long handle);

  private static native Tensor[] execute(
      long handle, String method, Buffer[] data, long[][] shapes, int[] dtypes);

  private static native void close(long handle);
}
