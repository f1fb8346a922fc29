package org.ftte.doubles;

import android.app.Service;
import android.content.Context;
import java.io.File;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.ftte.demo.ServiceTrainer;
import org.ftte.demo.TrainingService;
import org.ftte.demo.VisitJob;

/** What the app's service and job do on such a phone: one case after the other, a line each: name, and what went wrong. */
public class Cases {
  private static File folder;

  interface Case {
    void run(int level) throws Exception;
  }

  public static void main(String[] words) throws Exception {
    Map<String, Case> cases = new LinkedHashMap<>();
    cases.put("a_foreground_service_that_the_system_refuses_is_no_crash", Cases::refused);
    cases.put("the_button_ends_the_service_for_good", Cases::button);
    cases.put("a_trainer_that_ends_by_an_error_is_not_started_again", Cases::error);
    cases.put("the_end_of_the_six_hours_is_no_crash_though_python_hangs", Cases::sixHours);
    cases.put("swiping_the_app_away_does_not_end_training", Cases::swiped);
    cases.put("locks_end_by_themselves", Cases::locks);
    cases.put("a_visit_tells_the_end_of_its_job_before_the_process_goes", Cases::visit);
    cases.put("a_job_that_is_stopped_ends_a_trainer_that_hangs", Cases::stopped);
    cases.put("scheduling_the_same_again_leaves_a_running_job_alone", Cases::schedule);
    cases.put("a_refused_start_leaves_a_visit_that_is_under_way_alone", Cases::refusedInVisit);
    cases.put("a_sticky_service_of_old_would_crash_in_a_loop", Cases::sticky); // last: it leaves threads behind
    for (int level : new int[] {26, 30, 31, 33, 34, 35, 36}) {
      for (Map.Entry<String, Case> each : cases.entrySet()) {
        folder = Files.createTempDirectory("phone").toFile();
        Python.runs = 0;
        Python.script = () -> {};
        String outcome = "ok";
        try {
          each.getValue().run(level);
        } catch (Throwable error) {
          StringWriter text = new StringWriter();
          error.printStackTrace(new PrintWriter(text));
          outcome = text.toString().replace('\n', ' ').replace('\t', ' ');
        }
        System.out.println(level + "\t" + each.getKey() + "\t" + outcome);
      }
    }
    System.exit(0); // threads of Python's doubles sleep
  }

  private static void check(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what + "; crashes: " + Phone.now.crashes);
    }
  }

  private static Phone phone(int level) {
    return new Phone(level, folder);
  }

  private static void start(Phone phone) {
    ServiceTrainer.start(new Context(), "/data");
    phone.idle();
  }

  private static String rest() throws Exception {
    File file = new File(folder, "rest.json");
    return file.exists() ? new String(Files.readAllBytes(file.toPath())) : "";
  }

  /** A trainer that waits to be stopped, and then ends in good order. */
  private static void obedient() {
    CountDownLatch stop = new CountDownLatch(1);
    TrainingService service = TrainingService.current;
    service.onStop(stop::countDown);
    service.show("Training", 1, 10, "Stop");
    try {
      stop.await();
      service.end();
    } catch (InterruptedException end) {
      throw new AssertionError(end);
    }
  }

  private static void hanging() {
    TrainingService.current.onStop(() -> {});
    try {
      new CountDownLatch(1).await();
    } catch (InterruptedException end) {
      throw new AssertionError(end);
    }
  }

  private static void running(Phone phone) throws InterruptedException {
    phone.await(() -> phone.shown.containsKey(1) && phone.shown.get(1).action != null, "the notification's button");
  }

  static void refused(int level) throws Exception {
    Phone phone = phone(level);
    phone.inFront = false;
    Python.script = Cases::obedient;
    start(phone);
    check(phone.crashes.isEmpty(), "a crash");
    if (level >= 31) {
      phone.await(() -> phone.processEnded, "the end of the process");
      check(Python.runs == 0, "Python ran without a foreground service");
      check(rest().contains("refused"), "the app cannot say why: " + rest());
    } else {
      running(phone);
      check(phone.foreground, "no foreground service");
    }
  }

  static void button(int level) throws Exception {
    Phone phone = phone(level);
    Python.script = Cases::obedient;
    start(phone);
    running(phone);
    check(phone.channels.equals(Map.of("org.ftte.demo.training", 2)), "channels: " + phone.channels);
    check("Training".contentEquals(phone.shown.get(1).text), "text: " + phone.shown.get(1).text);
    check(phone.shown.get(1).done == 1 && phone.shown.get(1).of == 10, "the bar");
    phone.inFront = false;
    phone.shown.get(1).action.pressed.press();
    phone.await(() -> phone.processEnded, "the end of the process");
    check(!phone.started && Python.runs >= 1, "it was started again");
    check(phone.crashes.isEmpty(), "a crash");
  }

  static void error(int level) throws Exception {
    Phone phone = phone(level);
    start(phone); // Python ends at once, without a word
    phone.await(() -> phone.processEnded, "the end of the process");
    check(Python.runs >= 1, "it was started again: " + Python.runs);
    check(phone.crashes.isEmpty(), "a crash");
  }

  /** As before: python-for-android's class, sticky, whose Python ends by exit(). */
  static void sticky(int level) throws Exception {
    Phone phone = phone(level);
    phone.start(OldService.class, OldService.intent());
    phone.await(() -> Python.runs >= 1, "Python");
    phone.await(() -> level >= 31 ? phone.crashes.size() >= 5 : Python.runs >= 3, "the loop");
    phone.startType = Service.START_NOT_STICKY;
    phone.await(() -> Python.runs >= phone.created, "the last Python");
  }

  static void sixHours(int level) throws Exception {
    if (level < 35) {
      return;
    }
    Phone phone = phone(level);
    Python.script = Cases::hanging;
    start(phone);
    phone.await(() -> Python.runs >= 1, "Python");
    phone.sixHours();
    check(phone.crashes.isEmpty(), "a crash");
    check(phone.processEnded, "it runs still");
    check(rest().contains("limit"), rest());
  }

  static void swiped(int level) throws Exception {
    Phone phone = phone(level);
    Python.script = Cases::obedient;
    start(phone);
    running(phone);
    phone.service.onTaskRemoved(null);
    phone.pass(60_000);
    check(phone.foreground && !phone.processEnded, "training ended");
  }

  static void locks(int level) throws Exception {
    Phone phone = phone(level);
    Python.script = Cases::obedient;
    start(phone);
    running(phone);
    check(phone.awake.isEmpty(), "awake without work");
    TrainingService.current.work(true, 180_000);
    phone.pass(100_000);
    check(phone.awake.size() == 1 && phone.wifi.size() == 1, "asleep at work");
    TrainingService.current.work(true, 180_000);
    phone.pass(100_000);
    check(phone.awake.size() == 1 && phone.wifi.size() == 1, "progress did not prolong it");
    phone.pass(100_000);
    check(phone.awake.isEmpty() && phone.wifi.isEmpty(), "awake without progress");
    TrainingService.current.work(false, 180_000);
    check(phone.awake.size() == 1 && phone.wifi.isEmpty(), "the Wi-Fi, unasked");
    TrainingService.current.rest();
    check(phone.awake.isEmpty(), "awake after work");
  }

  private static void visiting(Phone phone) throws Exception {
    check(VisitJob.schedule(new Context(), true, true, false, false), "no job");
    phone.runJob();
    phone.await(() -> Python.runs >= 1, "Python");
  }

  static void visit(int level) throws Exception {
    Phone phone = phone(level);
    Python.script =
        () -> {
          try {
            check(TrainingService.current.isVisit(), "no visit");
            TrainingService.current.end();
          } catch (InterruptedException end) {
            throw new AssertionError(end);
          }
        };
    visiting(phone);
    phone.await(() -> phone.processEnded, "the end of the process");
    check(Boolean.FALSE.equals(phone.jobAgain), "the job's end was not told: " + phone.jobAgain);
    check(phone.shown.isEmpty() && phone.crashes.isEmpty(), "a notification, or a crash");
    check(phone.jobs.size() == 1, "the next visit does not follow");
  }

  static void stopped(int level) throws Exception {
    Phone phone = phone(level);
    Python.script = Cases::hanging;
    visiting(phone);
    phone.stopJob();
    check(phone.jobAgain, "it is not made again");
    phone.pass(TrainingGrace.MILLIS);
    check(phone.processEnded, "it runs still");
    check(phone.crashes.isEmpty(), "a crash");
  }

  static void schedule(int level) throws Exception {
    Phone phone = phone(level);
    Python.script = Cases::hanging;
    visiting(phone);
    VisitJob.schedule(new Context(), true, true, false, false);
    check(phone.runningJob != null && phone.schedules == 1, "the running visit was ended");
    VisitJob.schedule(new Context(), true, false, false, false);
    check(phone.schedules == 2, "other conditions were not taken");
    phone.permissions.clear();
    check(!VisitJob.schedule(new Context(), false, false, false, false), "a refusal must be told, not thrown");
    VisitJob.cancel(new Context());
    check(!VisitJob.isScheduled(new Context()), "it is scheduled still");
  }

  static void refusedInVisit(int level) throws Exception {
    if (level < 31) {
      return;
    }
    Phone phone = phone(level);
    Python.script = Cases::obedient;
    VisitJob.schedule(new Context(), true, true, false, false);
    phone.runJob();
    phone.await(() -> Python.runs >= 1, "Python");
    start(phone); // in the background
    check(TrainingService.current.isVisit() && !phone.processEnded, "the visit was ended");
    check(phone.crashes.isEmpty(), "a crash");
  }
}
