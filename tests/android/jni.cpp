// The native half of the doubles in java/: what the archive's own JNI layer does with a Module, over the runtime of the
// wheel. Nothing between Python and ExecuTorch is made up.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <jni.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::extension::threadpool::NoThreadPoolGuard;
using executorch::runtime::Error;
using executorch::runtime::EValue;

namespace {

bool from_files = false;

struct Opened {
  Module module;
  int threads;
};

std::string text(JNIEnv* env, jstring value) {
  const char* chars = env->GetStringUTFChars(value, nullptr);
  std::string result(chars);
  env->ReleaseStringUTFChars(value, chars);
  return result;
}

void raise(JNIEnv* env, Error error, const std::string& details) {
  jclass type = env->FindClass("org/pytorch/executorch/ExecutorchRuntimeException");
  jmethodID make = env->GetMethodID(type, "<init>", "(ILjava/lang/String;)V");
  jobject exception = env->NewObject(type, make, static_cast<jint>(error), env->NewStringUTF(details.c_str()));
  env->Throw(static_cast<jthrowable>(exception));
}

Opened* opened(jlong handle) { return reinterpret_cast<Opened*>(handle); }

}  // namespace

extern "C" {

// For tests: the bridge asks for mapped programs, other apps may not.
JNIEXPORT void load_from_files(bool enabled) { from_files = enabled; }

JNIEXPORT jlong JNICALL Java_org_pytorch_executorch_Module_open(JNIEnv* env, jclass, jstring path, jint mode,
                                                                jint threads) {
  auto load = mode == 0 || from_files ? Module::LoadMode::File : Module::LoadMode::Mmap;
  return reinterpret_cast<jlong>(new Opened{Module(text(env, path), load), threads});
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_methods(JNIEnv* env, jclass, jlong handle) {
  const auto names = opened(handle)->module.method_names();
  if (!names.ok()) {
    raise(env, names.error(), "Cannot get method names");
    return nullptr;
  }
  jobjectArray result = env->NewObjectArray(static_cast<jsize>(names->size()), env->FindClass("java/lang/String"), nullptr);
  jsize i = 0;
  for (const std::string& name : *names) {
    env->SetObjectArrayElement(result, i++, env->NewStringUTF(name.c_str()));
  }
  return result;
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_execute(JNIEnv* env, jclass, jlong handle,
                                                                          jstring method, jobjectArray data,
                                                                          jobjectArray shapes, jintArray dtypes) {
  const jsize count = env->GetArrayLength(data);
  std::vector<jint> codes(count);
  env->GetIntArrayRegion(dtypes, 0, count, codes.data());
  std::vector<TensorPtr> tensors;
  for (jsize i = 0; i < count; ++i) {
    auto shape = static_cast<jlongArray>(env->GetObjectArrayElement(shapes, i));
    std::vector<jlong> sizes(env->GetArrayLength(shape));
    env->GetLongArrayRegion(shape, 0, static_cast<jsize>(sizes.size()), sizes.data());
    jobject buffer = env->GetObjectArrayElement(data, i);
    tensors.push_back(executorch::extension::from_blob(
        env->GetDirectBufferAddress(buffer), std::vector<executorch::aten::SizesType>(sizes.begin(), sizes.end()),
        static_cast<executorch::aten::ScalarType>(codes[i])));
    env->DeleteLocalRef(shape);
    env->DeleteLocalRef(buffer);
  }
  const std::vector<EValue> inputs(tensors.begin(), tensors.end());
  std::optional<NoThreadPoolGuard> alone;
  if (opened(handle)->threads == 1) {
    alone.emplace();
  }
  const auto outputs = opened(handle)->module.execute(text(env, method), inputs);
  if (!outputs.ok()) {
    raise(env, outputs.error(), "Execution failed for method: " + text(env, method));
    return nullptr;
  }
  jclass type = env->FindClass("org/pytorch/executorch/Tensor");
  jmethodID make = env->GetStaticMethodID(type, "nativeNewTensor",
                                          "(Ljava/nio/ByteBuffer;[JI)Lorg/pytorch/executorch/Tensor;");
  jobjectArray result = env->NewObjectArray(static_cast<jsize>(outputs->size()), type, nullptr);
  for (size_t i = 0; i < outputs->size(); ++i) {
    const auto& tensor = (*outputs)[i].toTensor();
    const std::vector<jlong> sizes(tensor.sizes().begin(), tensor.sizes().end());
    jlongArray shape = env->NewLongArray(static_cast<jsize>(sizes.size()));
    env->SetLongArrayRegion(shape, 0, static_cast<jsize>(sizes.size()), sizes.data());
    jobject buffer = env->NewDirectByteBuffer(tensor.mutable_data_ptr(), static_cast<jlong>(tensor.nbytes()));
    jobject wrapped = env->CallStaticObjectMethod(type, make, buffer, shape, static_cast<jint>(tensor.scalar_type()));
    env->SetObjectArrayElement(result, static_cast<jsize>(i), wrapped);
    env->DeleteLocalRef(shape);
    env->DeleteLocalRef(buffer);
    env->DeleteLocalRef(wrapped);
  }
  return result;
}

JNIEXPORT void JNICALL Java_org_pytorch_executorch_Module_close(JNIEnv*, jclass, jlong handle) {
  delete opened(handle);
}

}  // extern "C"
