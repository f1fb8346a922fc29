package android.content.res;

import android.os.LocaleList;

public class Configuration {
  public LocaleList getLocales() {
    return new LocaleList();
  }
}
