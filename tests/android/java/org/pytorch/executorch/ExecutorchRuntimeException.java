package org.pytorch.executorch;

/** What the archive throws when the runtime reports an error, with the archive's form of message. */
public class ExecutorchRuntimeException extends RuntimeException {
  private final int errorCode;

  public ExecutorchRuntimeException(int errorCode, String details) {
    super("[ExecuTorch Error 0x" + Integer.toHexString(errorCode) + "] " + details);
    this.errorCode = errorCode;
  }

  public int getErrorCode() {
    return errorCode;
  }
}
