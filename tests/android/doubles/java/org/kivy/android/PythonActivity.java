package org.kivy.android;

/** Named by the notification alone. */
public class PythonActivity {}
