package org.example.app

import android.content.Context
import android.net.LocalSocket
import android.net.LocalSocketAddress
import org.example.trainer.ServiceTrainer
import org.json.JSONObject

/** Trains in the service's process, until the app is swiped away: Android then stops it, and start() begins again. Call [listen] and [predict] off the main thread. */
class Training(private val context: Context) {
    private val path = context.filesDir.resolve("trainer.sock").path
    private val socket = LocalSocket()

    fun start(invite: String, data: String) {
        ServiceTrainer.prepare(context) // unpacks Python, the first time
        val argument = JSONObject().put("invite", invite).put("data", data).put("socket", path)
        ServiceTrainer.start(context, argument.put("storage", context.filesDir.path + "/ftte").toString())
    }

    /** Connects, then tells every event and answer until the service ends; try again while it is not up yet. */
    fun listen(listener: (JSONObject) -> Unit) {
        socket.connect(LocalSocketAddress(path, LocalSocketAddress.Namespace.FILESYSTEM))
        socket.inputStream.bufferedReader().forEachLine { listener(JSONObject(it)) }
    }

    /** Asks for predictions; the answer is an event with the key "prediction". */
    fun predict(samples: String) = send("{\"predict\": $samples}")

    fun stop() = send("{\"stop\": true}")

    private fun send(line: String) = socket.outputStream.run { write((line + "\n").toByteArray()); flush() }
}
