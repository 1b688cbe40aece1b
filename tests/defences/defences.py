"""Every test of docs/security.md, with the defence that it is about taken out: it must fail then, and pass before.

The tree is copied, a switch is written into the copy at each defence (the product itself has none: nobody can build a
Carillon that is open by mistake), the tests are built once, and run once for each defence with that one switched off.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
COPY = TARGET / "defences"
OFF = 'crate::mutant::is("{}")'


class Defence:
    """A name, where it stands in the source, how it reads when it can be switched off, and the tests that show it."""

    def __init__(self, name, file, was, becomes, *tests):
        self.name, self.file, self.was = name, file, was
        self.becomes = becomes.replace("OFF", OFF.format(name))
        self.tests = tests


S, C, W, T, L, R, I, G, B, H, V, U, Z, D, Y, K, P = "security", "callback", "websocket", "transports", "limits", "rfc6455", "internal", "bus_rights", "bus_corpus", "headers", "revocation", "budgets", "terminals", "demo", "cli_traps", "lib", "acceptance"

DEFENCES = [
    Defence("origin", "src/http/origin.rs", "if self.is_listed(&origin) ||", "if OFF || self.is_listed(&origin) ||",
            (S, "a_page_of_another_site_cannot_use_an_editors_cookie_on_any_transport")),
    Defence("cookies", "src/http/headers.rs", "    (!values.is_empty()).then(|| values.join(separator))",
            "    if OFF {\n        return values.first().filter(|value| value.is_ascii()).map(|value| value.to_vec());\n    }\n"
            "    (!values.is_empty()).then(|| values.join(separator))",
            (H, "odd_cookies_hide_no_other_by_any_way_in"), (H, "cookies_over_http2_come_in_several_fields")),
    Defence("one-host", "src/http/listener.rs", "let settled = settle_host(&mut request);",
            "let settled = settle_host(&mut request).or_else(|problem| if OFF { Ok(()) } else { Err(problem) });",
            (H, "a_request_has_one_host"), (H, "cookies_over_http2_come_in_several_fields")),
    Defence("trusted-end", "src/http/origin.rs", "let at = items.len().saturating_sub(proxies);", "let at = if OFF { 0 } else { items.len().saturating_sub(proxies) };",
            (H, "a_proxys_lists_are_read_from_its_end")),
    Defence("forwarded", "src/http/origin.rs", "self.trusted.iter().any(|network| network.contains(&address))",
            "OFF || self.trusted.iter().any(|network| network.contains(&address))",
            (L, "a_proxy_may_vouch_for_the_host_and_nobody_else"), (L, "an_address_has_its_share_and_proxies_are_not_addresses")),
    Defence("cors", "src/http/cors.rs", "public.settings.origins.is_listed(text)", "OFF || public.settings.origins.is_listed(text)",
            (S, "a_page_of_another_site_cannot_use_an_editors_cookie_on_any_transport")),
    Defence("signature", "src/auth/token.rs", "    for key in keys.iter().filter(|key| key.fits(algorithm)) {",
            "    if OFF {\n        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());\n"
            "        return Ok(claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default());\n    }\n"
            "    for key in keys.iter().filter(|key| key.fits(algorithm)) {",
            (S, "a_good_token_opens_every_door_and_a_bad_one_none"), (K, "what_is_not_a_good_token_is_refused"),
            (P, "test_auth.py::test_forged_expired_and_foreign_tokens_are_refused_wherever_they_come")),
    Defence("algorithm", "src/auth/token.rs", "        let algorithm = self.algorithm(&header)?;",
            "        if OFF && header.alg == \"none\" {\n"
            "            let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());\n"
            "            let claims = claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default();\n"
            "            return self.check(&claims, now_ms() / 1000).map_err(AuthError::Refused);\n        }\n"
            "        let algorithm = self.algorithm(&header)?;",
            (S, "a_good_token_opens_every_door_and_a_bad_one_none"), (K, "a_token_cannot_choose_how_it_is_checked"),
            (P, "test_auth.py::test_the_algorithm_is_the_configurations_choice_never_the_tokens")),
    Defence("expiry", "src/auth/token.rs", "if now > exp.saturating_add(LEEWAY) {", "if now > exp.saturating_add(LEEWAY) && !OFF {",
            (S, "a_good_token_opens_every_door_and_a_bad_one_none")),
    Defence("end", "src/session/pulse.rs", "if now >= self.until.load(Relaxed) {", "if now >= self.until.load(Relaxed) && !OFF {",
            (W, "a_session_ends_with_its_token_unless_a_new_one_comes"), (T, "a_stream_ends_with_its_token")),
    Defence("private", "src/auth/grant.rs", "topic.key().is_none_or(|key| key == self.own_key)",
            "OFF || topic.key().is_none_or(|key| key == self.own_key)",
            (S, "nobody_follows_anothers_notifications_by_any_spelling_grant_or_transport"),
            (P, "test_private.py::test_a_notification_reaches_all_sessions_of_its_editor_on_all_nodes_and_nobody_elses")),
    Defence("one-spelling", "src/protocol/topic.rs", "if right == topic { Ok(topic) } else {", "if OFF || right == topic { Ok(topic) } else {",
            ("private_keys", "other_spellings_are_refused_at_every_door_and_told_the_right_one")),
    Defence("node-secret", "src/bus/redis/seal.rs", "if self.required { Err(Broken::Missing) } else { Ok(()) }",
            "if self.required && !OFF { Err(Broken::Missing) } else { Ok(()) }",
            ("node_secret", "an_order_of_somebody_else_and_a_repeated_one_close_nobody"),
            ("node_secret", "what_is_kept_counts_only_where_a_node_has_signed_it")),
    Defence("fresh-order", "src/bus/redis/seal.rs", "        heard.insert(id.into(), at);", "        if !OFF {\n            heard.insert(id.into(), at);\n        }",
            ("node_secret", "an_order_of_somebody_else_and_a_repeated_one_close_nobody"), (K, "a_nodes_word_is_heard_once")),
    Defence("private-all", "src/auth/grant.rs", "!areas.is_private(area) && self.patterns.covers_area(area)",
            "(OFF || !areas.is_private(area)) && self.patterns.covers_area(area)",
            (S, "nobody_follows_anothers_notifications_by_any_spelling_grant_or_transport")),
    Defence("grant", "src/session/machine.rs", "if !self.grant.allows(&subject, &terms.areas) {", "if !self.grant.allows(&subject, &terms.areas) && !OFF {",
            (T, "a_cursor_allows_nothing_that_the_token_does_not"), (W, "refused_topics_are_named_and_the_others_followed")),
    Defence("narrower", "src/session/machine.rs", "partition(|subject| grant.allows(subject, &areas))",
            "partition(|subject| OFF || grant.allows(subject, &areas))",
            (C, "the_answer_is_renewed_before_it_ends_and_what_it_no_longer_allows_ends"), (K, "a_new_token_that_allows_less_takes_topics_back")),
    Defence("disconnect", "src/relay/revocations.rs", "        for (id, member) in hub.members() {",
            "        for (id, member) in hub.members() {\n            if OFF {\n                continue;\n            }",
            (W, "a_revoked_editor_is_closed_with_4403_and_others_are_not"), (V, "one_session_one_token_or_one_browser_can_be_shut_out")),
    Defence("revoked", "src/auth/mod.rs", "        self.revocations.covers(proof, None)\n", "        self.revocations.covers(proof, None).filter(|_| !OFF)\n",
            (S, "a_revoked_editor_does_not_come_back_with_the_old_token")),
    Defence("last-look", "src/relay/revocations.rs", "self.known.covers(proof, Some(session)) else",
            "self.known.covers(proof, Some(session)).filter(|_| !OFF) else",
            (V, "a_handshake_from_before_is_of_no_use_after_it")),
    Defence("asked", "src/protocol/revocation.rs", "self.number > known\n", "!OFF && self.number > known\n",
            (V, "an_answer_of_the_cms_is_as_old_as_its_question"), (C, "a_revoked_editor_is_asked_about_anew")),
    Defence("kept", "src/bus/redis/link.rs", "if !unknown.is_empty() {", "if !unknown.is_empty() && !OFF {",
            (V, "a_node_that_starts_later_knows_and_a_redis_that_forgot_is_told_again"), (V, "a_node_that_was_away_closes_whom_it_did_not_hear_about")),
    Defence("written-back", "src/bus/redis/revoked.rs", "let written = if lost.is_empty() {", "let written = if OFF || lost.is_empty() {",
            (V, "a_node_that_starts_later_knows_and_a_redis_that_forgot_is_told_again")),
    Defence("lost-order", "src/bus/redis/revoked.rs", "change == self.revocations_read.load(Relaxed) {", "(OFF || change == self.revocations_read.load(Relaxed)) {",
            (V, "an_order_whose_message_was_lost_is_learned_although_later_ones_were_heard")),
    Defence("order-clock", "src/protocol/revocation.rs", "Heard::AtOnce if now.abs_diff(revocation.at) > UNDER_WAY => now,", "Heard::AtOnce if now.abs_diff(revocation.at) > UNDER_WAY && !OFF => now,",
            (K, "an_order_counts_by_the_clock_of_the_node_that_hears_of_it")),
    Defence("refresh-ahead", "src/protocol/revocation.rs", "        if issued > now {\n", "        if issued > now && !OFF {\n",
            (K, "rights_that_have_changed_do_not_come_back_and_new_ones_count_at_once"), (V, "rights_do_not_come_back_with_a_token_whose_clock_is_ahead")),
    Defence("iat", "src/auth/token.rs", "Some(issued) if issued > soon =>", "Some(issued) if issued > soon && !OFF =>",
            (V, "what_counts_as_issued_before_does_not_depend_on_tricks_with_iat")),
    Defence("refresh", "src/protocol/revocation.rs", "[Kind::Disconnect, Kind::Refresh].into_iter().find(covers)",
            "[Kind::Disconnect, Kind::Refresh].into_iter().filter(|kind| *kind == Kind::Disconnect || !OFF).find(covers)",
            (V, "whose_rights_have_changed_goes_on_with_a_new_token")),
    Defence("connections", "src/http/crowd.rs", "        if self.limit > 0 && inner.open >= self.limit {\n            return None;", "        if self.limit > 0 && inner.open >= self.limit && !OFF {\n            return None;",
            (U, "connections_are_counted_with_and_without_a_session")),
    Defence("idle", "src/http/listener.rs", "if activity.is_over(idle, self.stalled) {", "if activity.is_over(idle, self.stalled) && !OFF {",
            (U, "a_connection_without_a_stream_ends")),
    Defence("frames", "src/session/mod.rs", "frames == 0 || self.machine", "frames == 0 || OFF || self.machine",
            (U, "frames_without_a_message_count_as_messages_before_connect_too")),
    Defence("flood-after", "src/session/websocket.rs", "                    Ok(_) => turns -= 1,", "                    Ok(_) if OFF => {}\n                    Ok(_) => turns -= 1,",
            (U, "a_flood_is_not_read_on_after_it_was_cut")),
    Defence("unread-cursor", "src/session/cursor.rs", "if *cursor != Cursor::default())", "if OFF || *cursor != Cursor::default())",
            (U, "a_cursor_that_cannot_be_read_begins_anew_and_counts_so")),
    Defence("stuck-resync", "src/session/pulse.rs", "stuck > 0 && waited", "stuck > 0 && !OFF && waited",
            (K, "a_resync_that_the_connection_does_not_take_ends_the_session"),
            (L, "a_stream_that_stops_before_its_resync_is_closed_with_4409_though_nothing_happens")),
    Defence("stood-still", "src/session/roll.rs", "if catching_up == 0 || !due.is_silence() {", "if OFF || catching_up == 0 || !due.is_silence() {",
            (K, "whom_the_node_could_not_hear_while_it_stood_still_is_not_called_silent")),
    Defence("strangers", "src/session/roll.rs", "let (rate, per_second, full) = if known {", "let (rate, per_second, full) = if known && !OFF {",
            (U, "strangers_use_up_nobody_elses_room")),
    Defence("editor-requests", "src/session/budget.rs", "        self.requests.take(1, budgets.requests_per_second, now)\n",
            "        OFF || self.requests.take(1, budgets.requests_per_second, now)\n", (U, "a_cursor_exempts_from_nothing")),
    Defence("editor-topics", "src/session/budget.rs", "        if self.seen.contains(&hash) {", "        if OFF || self.seen.contains(&hash) {",
            (U, "an_editors_topics_are_counted_over_all_sessions_and_transports")),
    Defence("foreign-page", "src/http/origin.rs", "if !foreign || !headers", "if OFF || !foreign || !headers",
            (U, "a_foreign_page_opens_nothing_without_an_origin_either")),
    Defence("this-machine", "src/http/internal.rs", "&& !page && !brought && is_local(headers) {", "&& !page && (OFF || !brought && is_local(headers)) {",
            (U, "a_door_without_a_secret_is_for_this_machine_alone")),
    Defence("own-names", "src/http/internal.rs", "if spared || internal.hosts", "if OFF || spared || internal.hosts",
            (U, "the_internal_door_answers_to_its_own_names_only")),
    Defence("ask-first", "src/http/internal.rs", "        Err(problem) => Refusal::from(problem).into_response(),\n    }\n}\n\n/// A body that takes",
            "        Err(_) if OFF => next.run(request).await,\n        Err(problem) => Refusal::from(problem).into_response(),\n    }\n}\n\n/// A body that takes",
            (U, "who_it_is_is_asked_before_a_body_is_read")),
    Defence("printable", "src/printable.rs", "if !text.contains(is_bad) {", "if OFF || !text.contains(is_bad) {",
            (K, "nothing_that_acts_on_a_terminal_is_left"), (Z, "a_hostile_server_writes_nothing_into_the_doctors_terminal"),
            (Z, "a_strangers_token_is_shown_as_text"), (Z, "an_events_text_is_printed_as_text_by_tail"), (Z, "a_strangers_name_is_text_in_the_log")),
    Defence("dev-secret", "src/cli/dev.rs", "        if configured {\n            sign_with", "        if configured && !OFF {\n            sign_with",
            (D, "a_production_file_lends_the_demo_no_secret")),
    Defence("demo-page", "src/http/demo/mod.rs", "if matches!(*request.method(), Method::GET | Method::HEAD) {",
            "if OFF || matches!(*request.method(), Method::GET | Method::HEAD) {", (D, "only_the_demos_own_page_writes")),
    Defence("warnings", "src/config/advice.rs", "        let mut found = Vec::new();\n", "        let mut found = Vec::new();\n        if OFF {\n            return found;\n        }\n",
            (K, "doors_that_stand_open_are_warned_of"), (Y, "a_door_that_stands_open_is_said_by_the_check_and_by_a_node")),
    Defence("told", "src/auth/callback.rs", "        tell(&credentials.told, &mut headers);\n", "        if !OFF {\n            tell(&credentials.told, &mut headers);\n        }\n",
            (C, "the_cms_is_told_which_of_its_sites_was_asked_and_for_what"), (C, "an_answer_for_one_site_or_topic_is_not_believed_for_another")),
    Defence("auth-ca", "src/auth/fetch.rs", "config.auth.tls_ca.as_ref().map(read)", "config.auth.tls_ca.as_ref().filter(|_| !OFF).map(read)",
            (C, "the_server_that_decides_must_be_the_one_that_auth_tls_ca_signed")),
    Defence("header-time", "src/http/listener.rs", "() = deadline.as_mut(), if !begun.load(Ordering::Relaxed) => {",
            "() = deadline.as_mut(), if !OFF && !begun.load(Ordering::Relaxed) => {", (R, "a_handshake_that_stalls_is_cut_off")),
    Defence("body-time", "src/http/internal.rs", "tokio::time::sleep(BODY_TIME)", "tokio::time::sleep(if OFF { BODY_TIME * 1000 } else { BODY_TIME })",
            (S, "a_body_that_stalls_is_given_up")),
    Defence("connect-time", "src/session/pulse.rs", "(silent >= CONNECT_WITHIN && !self.introduced", "(silent >= CONNECT_WITHIN && !OFF && !self.introduced",
            (W, "whoever_does_not_connect_is_closed_with_4408")),
    Defence("accept-rate", "src/session/roll.rs", "if rate.take(1, per_second, clock) { Ok(()) }",
            "if rate.take(1, per_second, clock) || OFF { Ok(()) }", (L, "newcomers_beyond_the_rate_come_back_later")),
    Defence("sessions", "src/session/roll.rs", "inner.places.len() >= self.limits.sessions {", "inner.places.len() >= self.limits.sessions && !OFF {",
            (W, "limits_of_sessions_are_kept")),
    Defence("file-limit", "src/http/listener.rs", "Err(e) if is_out_of_files(&e) => {", "Err(e) if is_out_of_files(&e) && !OFF => {",
            (P, "test_switches.py::test_a_node_out_of_files_turns_newcomers_away_and_serves_those_who_are_there")),
    Defence("per-editor", "src/session/roll.rs", "most > 0 && editor.sessions >= most;", "most > 0 && editor.sessions >= most && !OFF;",
            (W, "limits_of_sessions_are_kept")),
    Defence("per-address", "src/session/roll.rs", "count >= self.limits.per_address {", "count >= self.limits.per_address && !OFF {",
            (L, "an_address_has_its_share_and_proxies_are_not_addresses")),
    Defence("messages", "src/session/machine.rs", "if !self.allowance.message(terms.messages_per_second, now) {",
            "if !self.allowance.message(terms.messages_per_second, now) && !OFF {", (W, "a_flood_of_messages_is_cut_off_with_1013")),
    Defence("subscriptions", "src/session/machine.rs", "&& !self.allowance.topics(terms.subscriptions_per_second, topics.len(), now)",
            "&& !self.allowance.topics(terms.subscriptions_per_second, topics.len(), now)\n            && !OFF",
            (S, "a_flood_of_subscriptions_is_cut_off_with_1013")),
    Defence("topics", "src/session/machine.rs", "if self.followed.len() >= terms.topics || !fits {", "if (self.followed.len() >= terms.topics || !fits) && !OFF {",
            (W, "sixty_five_topics_are_one_too_many")),
    Defence("slow", "src/session/pulse.rs", "since.elapsed() >= OWED_WITHIN)", "since.elapsed() >= OWED_WITHIN && !OFF)",
            (L, "a_session_that_reads_nothing_at_all_is_closed_with_4409")),
    Defence("message-size", "src/session/intake.rs", "        let limit = self.limit;\n", "        let limit = if OFF { usize::MAX } else { self.limit };\n",
            (S, "oversized_and_deep_json_is_refused_at_every_door"), (R, "a_length_that_is_too_large_is_refused_before_it_arrives")),
    Defence("event-size", "src/protocol/event.rs", "if json.len() > limit {", "if json.len() > limit && !OFF {",
            (S, "oversized_and_deep_json_is_refused_at_every_door"),
            (P, "test_doors.py::test_what_is_bad_on_a_bare_publish_is_counted_and_never_delivered")),
    Defence("event-depth", "src/protocol/event.rs", "if self.depth >= MAX_DEPTH {", "if self.depth >= MAX_DEPTH && !OFF {",
            (S, "oversized_and_deep_json_is_refused_at_every_door")),
    Defence("body-size", "src/http/internal.rs", "DefaultBodyLimit::max(BODY)", "DefaultBodyLimit::max(if OFF { usize::MAX } else { BODY })",
            (S, "oversized_and_deep_json_is_refused_at_every_door")),
    Defence("compression", "src/http/upgrade.rs", "    // To the letter: a client that did not offer",
            "    if OFF {\n        answers.insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(\"permessage-deflate\"));\n    }\n"
            "    // To the letter: a client that did not offer", (S, "nothing_is_ever_decompressed")),
    Defence("position", "src/relay/log.rs", "if position.lineage != head.lineage", "if position.lineage != head.lineage && !OFF",
            (S, "a_forged_position_is_a_resync_and_never_a_silent_jump")),
    Defence("position-epoch", "src/relay/log.rs", "if position.id.epoch != head.top.epoch {", "if position.id.epoch != head.top.epoch && !OFF {",
            (S, "a_forged_position_is_a_resync_and_never_a_silent_jump")),
    Defence("position-ahead", "src/relay/log.rs", "        if seq > head.top.seq {\n            return Resumed::Ahead;",
            "        if seq > head.top.seq {\n            if OFF {\n                return Resumed::InStep;\n            }\n            return Resumed::Ahead;",
            (S, "a_forged_position_is_a_resync_and_never_a_silent_jump")),
    Defence("internal-right", "src/http/internal.rs", "        let token = authorization.and_then(bearer);",
            "        let token = authorization.and_then(bearer);\n        if OFF {\n            return Ok(Right::Everything);\n        }",
            (S, "whoever_has_no_secret_finds_the_internal_port_shut"), (I, "publishers_prove_what_they_may_publish")),
    Defence("loopback", "src/http/internal.rs", "if self.address.to_canonical().is_loopback() && !page",
            "if OFF || self.address.to_canonical().is_loopback() && !page",
            (I, "without_any_secret_only_programs_on_this_machine_are_let_in")),
    Defence("two-doors", "src/app/mod.rs", "            None => public.router(),", "            None if OFF => internal.router(),\n            None => public.router(),",
            (S, "the_internal_routes_are_not_on_the_public_listener")),
    Defence("publish-claim", "src/http/internal.rs", "Self::Topics(patterns) => patterns.covers(topic, areas)", "Self::Topics(patterns) => OFF || patterns.covers(topic, areas)",
            (I, "publishers_prove_what_they_may_publish")),
    Defence("redis-rights", "src/bus/redis/acl.rs", "    if is_sharded(settings) { \"spublish\" }", "    if OFF { \"publish +@all\" } else if is_sharded(settings) { \"spublish\" }",
            (G, "a_node_and_a_publisher_work_with_exactly_the_rights_that_are_printed")),
    Defence("poisoned", "src/protocol/event.rs", "        read.map_err(|e| EventError::Json(e.to_string()))?;\n        found.check()?;",
            "        if !OFF {\n            read.map_err(|e| EventError::Json(e.to_string()))?;\n            found.check()?;\n        }",
            (B, "a_bare_publish_and_a_log_written_by_hand_get_the_verdict"),
            (P, "test_doors.py::test_what_slipped_into_a_log_is_a_resync_invalid_and_the_position_goes_on")),
    Defence("secret-prints", "src/config/secret.rs", "        f.write_str(HIDDEN)\n    }\n}\n\nimpl fmt::Display",
            "        f.write_str(if OFF { &self.0 } else { HIDDEN })\n    }\n}\n\nimpl fmt::Display", (K, "a_secret_never_prints")),
    Defence("secret-serializes", "src/config/secret.rs", "        serializer.serialize_str(HIDDEN)", "        serializer.serialize_str(if OFF { &self.0 } else { HIDDEN })",
            (K, "a_secret_never_prints")),
    Defence("secret-shows", "src/config/show.rs", "    } else if SECRETS.contains(&key) {", "    } else if SECRETS.contains(&key) && !OFF {",
            (K, "what_is_shown_is_toml_that_means_the_same_and_hides_secrets")),
    Defence("credentials-print", "src/auth/mod.rs", "f.write_str(\"Credentials(***)\")",
            "f.write_str(self.token.as_deref().filter(|_| OFF).unwrap_or(\"Credentials(***)\"))", (K, "tokens_are_found_where_they_may_be")),
]


def copy():
    """The tree with a switch at every defence, in a folder of the target directory."""
    for name in ("src", "tests", "benches", "client", "demo"):
        shutil.rmtree(COPY / name, ignore_errors=True)
        shutil.copytree(ROOT / name, COPY / name, ignore=shutil.ignore_patterns(".tools", "node_modules", "output", "__pycache__"))
    for name in ("Cargo.toml", "Cargo.lock", "clippy.toml", "README.md"):
        shutil.copy(ROOT / name, COPY / name)
    missing = []
    for defence in DEFENCES:
        file = COPY / defence.file
        text = file.read_text()
        if text.count(defence.was) != 1:
            missing.append(f"{defence.name}: {defence.file} has not exactly once: {defence.was}")
        file.write_text(text.replace(defence.was, defence.becomes))
    if missing:
        sys.exit("these defences are not where they were; look whether they are still there, and tell this script:\n" + "\n".join(missing))


def call(command, off, cwd):
    """Runs a command with a defence off; whether it succeeded, and what was printed."""
    env = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARILLON_BIN": str(TARGET / "debug/carillon"), "CARILLON_TEST_OUTPUT": str(COPY / "output")}
    if off:
        env["CARILLON_MUTANT"] = off
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def run(tests, off=None):
    """Runs these tests; whether all passed, and what was printed."""
    outside = sorted({f"tests/acceptance/{name}" for binary, name in tests if binary == P})
    tests = [test for test in tests if test[0] != P]
    passed, printed = True, ""
    if tests:
        passed, printed = inside(tests, off)
    if outside:
        # From the project's own tree, on the program of the copy.
        well, more = call([ROOT / "tests/acceptance/run", *outside], off, ROOT)
        passed, printed = passed and well, printed + more
    return passed, printed


def inside(tests, off):
    """The tests that cargo runs."""
    # The unit tests of the library, and modules of the one program of integration tests.
    kinds = {K if place == K else "integration" for place, _ in tests}
    which = [word for kind in sorted(kinds) for word in (["--lib"] if kind == K else ["--test", kind])]
    path = lambda place, name: f"(^|::){name}" if place == K else f"^{place}::{name}"  # noqa: E731
    wanted = " + ".join(f"test(/{path(place, name)}$/)" for place, name in sorted(set(tests)))
    quiet = ["--no-fail-fast", "--hide-progress-bar", "--status-level", "fail", "--final-status-level", "fail"]
    return call(["cargo", "nextest", "run", "--locked", "--features", "mutants", *which, "-E", wanted, *quiet], off, COPY)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("defences", nargs="*", help="these only")
    parser.add_argument("--list", action="store_true", help="print defences and tests, and do nothing")
    options = parser.parse_args()
    chosen = [defence for defence in DEFENCES if not options.defences or defence.name in options.defences]
    if options.list:
        for defence in chosen:
            print(f"{defence.name:<18} {defence.file:<26} " + ", ".join(f"{binary}::{name}" for binary, name in defence.tests))
        return 0
    COPY.mkdir(parents=True, exist_ok=True)
    copy()
    built, printed = call(["cargo", "build", "--locked", "--features", "mutants", "--bin", "carillon"], None, COPY)
    if not built:
        sys.exit(printed)
    everything = [test for defence in chosen for test in defence.tests]
    passed, printed = run(everything)
    print(f"all defences in place: {'passed' if passed else 'FAILED'}", flush=True)
    if not passed:
        print(printed)
    failed = 0 if passed else 1
    for defence in chosen:
        # Each test by itself: every one of them must notice.
        slept = [name for binary, name in defence.tests if run([(binary, name)], defence.name)[0]]
        print(f"without {defence.name:<18} " + (f"NOT NOTICED by {', '.join(slept)}" if slept else "noticed by " + ", ".join(name for _, name in defence.tests)), flush=True)
        failed += bool(slept)
    print(f"{len(chosen) + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
