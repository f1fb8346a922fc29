package android.os;

public class PersistableBundle extends BaseBundle {}
