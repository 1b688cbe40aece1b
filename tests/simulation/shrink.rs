//! From a schedule that fails to a short one that fails in the same way: steps are left out, first many at once and then one
//! by one, as long as what is left still shows it (delta debugging).

use crate::{plan::Plan, search::Runner};

/// Runs a schedule again, shrinks it where it fails, and prints the timeline of what is left. Whether it failed.
pub(crate) fn show(runner: &Runner, plan: Plan) -> bool {
    let Some(violation) = runner.run(plan.clone(), false).violation else {
        println!("seed {}: nothing was wrong", plan.seed);
        return false;
    };
    let kind = violation.kind;
    println!("seed {}: {kind}: {}", plan.seed, violation.text);
    let fails =
        |plan: &Plan| runner.run(plan.clone(), false).violation.is_some_and(|found| found.kind == kind);
    let mut plan = shorten(plan, &fails);
    idle(&mut plan, &fails);
    let outcome = runner.run(plan.clone(), true);
    println!("{} steps are enough:", plan.steps.len());
    println!("{}", serde_json::to_string(&plan).unwrap_or_default());
    for line in outcome.journal {
        println!("{line}");
    }
    true
}

fn shorten(mut plan: Plan, fails: &dyn Fn(&Plan) -> bool) -> Plan {
    let mut size = plan.steps.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shorter = false;
        while from < plan.steps.len() {
            let mut less = plan.clone();
            less.steps.drain(from..(from + size).min(plan.steps.len()));
            if fails(&less) {
                plan = less;
                shorter = true;
            } else {
                from += size;
            }
        }
        if size == 1 && !shorter {
            return plan;
        }
        size = (size / 2).max(1);
    }
}

/// Clients that nothing depends on follow as little as they can.
fn idle(plan: &mut Plan, fails: &dyn Fn(&Plan) -> bool) {
    for part in 0..plan.parts.len() {
        let mut less = plan.clone();
        less.parts[part].subjects.clear();
        if fails(&less) {
            *plan = less;
        }
    }
}
