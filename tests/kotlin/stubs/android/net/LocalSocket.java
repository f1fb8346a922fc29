package android.net;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

public class LocalSocket {
  public void connect(LocalSocketAddress endpoint) throws IOException {}

  public InputStream getInputStream() throws IOException {
    throw new IOException("a stub");
  }

  public OutputStream getOutputStream() throws IOException {
    throw new IOException("a stub");
  }
}
