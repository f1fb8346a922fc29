/* The door from Java (a thread of the sandbox, whose class loader JNI then uses) to the Python of this process. */
#include <jni.h>
#include <stddef.h>

typedef void (*door_t)(const char *what, const char *entry, const char *service, const char *argument,
                       const char *private_folder);

static door_t door;

void set_door(door_t function) { door = function; }

static const char *text(JNIEnv *env, jstring string) {
    return string ? (*env)->GetStringUTFChars(env, string, NULL) : "";
}

JNIEXPORT void JNICALL Java_org_ftte_robo_Gate_enter(JNIEnv *env, jclass type, jstring what) {
    door("gate", text(env, what), "", "", "");
}

/* As python-for-android's start.c. */
JNIEXPORT void JNICALL Java_org_kivy_android_PythonService_nativeStart(
    JNIEnv *env, jclass type, jstring private_folder, jstring argument, jstring entry, jstring name, jstring home,
    jstring path, jstring service) {
    door("service", text(env, entry), text(env, service), text(env, argument), text(env, private_folder));
}
