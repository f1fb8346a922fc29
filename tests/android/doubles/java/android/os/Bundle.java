package android.os;

public class Bundle extends BaseBundle {}
