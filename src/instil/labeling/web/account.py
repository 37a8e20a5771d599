"""Pages about the person: signing in, invitations, the account, guidelines, the survey."""

from __future__ import annotations

import secrets

from starlette.responses import Response

from instil.errors import InstilError
from instil.labeling import accounts, guidelines, people, survey
from instil.labeling.people import Session
from instil.labeling.web.route import (
    ANYONE,
    LABELERS,
    PUBLIC,
    NotFound,
    Seen,
    action,
    page,
    redirect,
    render,
    sentence,
)

SHORTCUTS = {
    "previous": ("Previous output", "["),
    "next": ("Next output", "]"),
    "tie": ("Tie with the tier above", "="),
    "flag": ("Flag, then a digit", "m"),
    "compare": ("Compare, then two letters", "v"),
    "open": ("Open the output in full", "o"),
    "prompt": ("Show or fold the prompt", "p"),
    "guidelines": ("Show the guidelines", "r"),
    "help": ("All keys", "?"),
}
"""Commands whose key may be changed, and the key that each has at first. Letters A to I and digits
belong to outputs and scores; what submits or skips is never one plain key."""

TOPICS = {
    "politics": "Politics",
    "religion": "Religion",
    "ethnicity": "Race, ethnicity and nationality",
    "gender": "Gender and sexual orientation",
    "disability": "Disability and illness",
    "age": "Age",
    "sexual": "Sexual content",
    "violence": "Violence and abuse",
    "self_harm": "Suicide and self-harm",
    "crime": "Crime and terrorism",
    "drugs": "Drugs and alcohol",
    "medicine": "Medicine and law",
}
"""Where a labeler may say that they can tell what is sensitive  [Ouyang et al. 2022, B.1]."""


def login(seen: Seen) -> Response:
    """Name and password; one message for whatever is wrong with them."""
    if seen.method == "GET":
        return redirect("/") if seen.session else _login(seen)
    name, password = seen.form.get("name", ""), seen.form.get("password", "")
    try:
        session = people.sign_in(seen.db, name, password, seen.address)
    except people.TooManyTries as error:
        return _login(seen, 429, name, sentence(error))
    except InstilError as error:
        return _login(seen, 422, name, sentence(error))
    if seen.session:
        people.sign_out(seen.db, seen.session)
    return _signed_in(seen, session, "/")


def _login(seen: Seen, status: int = 200, name: str = "", error: str = "") -> Response:
    return render(seen, "login.html", status, title="Sign in", name=name, error=error)


def _signed_in(seen: Seen, session: Session, url: str) -> Response:
    """Go on to `url` with a new cookie: none that was there before means anything now."""
    response = redirect(url)
    response.set_cookie(
        seen.settings.cookie,
        session.token,
        max_age=max(0, session.expires_at - seen.db.now()) // 1000,
        secure=seen.settings.secure,
        httponly=True,
        samesite="lax",
    )
    return response


def logout(seen: Seen) -> Response:
    """The session ends, for every tab that shares the cookie."""
    assert seen.session is not None
    people.sign_out(seen.db, seen.session)
    response = redirect("/login")
    response.delete_cookie(
        seen.settings.cookie, secure=seen.settings.secure, httponly=True, samesite="lax"
    )
    return response


def invitation(seen: Seen) -> Response:
    """An invitation becomes an account, or an account gets a new password; once."""
    token = seen.path["token"]
    invited = people.invited(seen.db, token)
    name, error = seen.form.get("name", ""), ""
    if seen.method == "POST":
        password = seen.form.get("password", "")
        if seen.settings.demo and invited.account:  # the link is all that is needed
            people.accept(seen.db, token, "", secrets.token_urlsafe())
            return _signed_in(seen, people.begin(seen.db, invited.account.id), "/")
        if password != seen.form.get("again", ""):
            error = "The two passwords are not the same."
        else:
            try:
                made = people.accept(seen.db, token, name, password)
            except InstilError as refused:
                error = sentence(refused)
            else:
                return _signed_in(seen, people.begin(seen.db, made.id), "/account/welcome")
    return render(
        seen,
        "invitation.html",
        422 if error else 200,
        title="Welcome to instil",
        invited=invited,
        demo=seen.settings.demo and invited.account,
        name=name,
        error=error,
    )


def welcome(seen: Seen) -> Response:
    """What a new account sees first."""
    return render(seen, "welcome.html", title="Welcome", topics=TOPICS)


def account(seen: Seen) -> Response:
    """Password, keys and topics; each of the three forms says by `change` which one it is."""
    if seen.method == "GET":
        return _account(seen)
    try:
        match seen.form.get("change"):
            case "password":
                return _new_password(seen)
            case "shortcuts":
                accounts.set_shortcuts(seen.db, seen.account, _shortcuts(seen))
            case "comfort":
                chosen = [topic for topic in TOPICS if topic in seen.form.getlist("comfort")]
                accounts.set_comfort(seen.db, seen.account, chosen)
                if seen.form.get("then") == "work":
                    return redirect("/?welcome")
            case _:
                raise InstilError("Nothing was chosen to be changed.")
    except InstilError as error:
        return _account(seen, 422, sentence(error))
    return redirect("/account?saved")


def _account(seen: Seen, status: int = 200, error: str = "") -> Response:
    return render(
        seen,
        "account.html",
        status,
        title="Your account",
        commands=SHORTCUTS,
        topics=TOPICS,
        error=error,
        change=seen.form.get("change", ""),
    )


def _new_password(seen: Seen) -> Response:
    new = seen.form.get("new", "")
    if new != seen.form.get("again", ""):
        raise InstilError("The two new passwords are not the same.")
    session = people.change_password(seen.db, seen.account, seen.form.get("old", ""), new)
    return _signed_in(seen, session, "/account?password")


def _shortcuts(seen: Seen) -> dict[str, str]:
    """What differs from the keys at first: command -> its key, or "off"."""
    changed = {"letters": "off"} if seen.form.get("letters") == "off" else {}
    used: dict[str, str] = {}
    for command, (text, usual) in SHORTCUTS.items():
        key = seen.form.get(command, usual).strip().lower()
        if key in ("", "off"):
            changed[command] = "off"
            continue
        if len(key) != 1 or not key.isprintable():
            raise InstilError(f"{text}: {key} is not one key; give one character, or off.")
        if key in "abcdefghi0123456789":
            raise InstilError(
                f"{text}: {key} belongs to an output or a score; choose another key, or off."
            )
        if key in used:
            raise InstilError(f"{text}: {key} is already the key of {used[key]!r}; choose another.")
        used[key] = text
        if key != usual:
            changed[command] = key
    return changed


def guideline(seen: Seen) -> Response:
    """One version of a guideline, as it stood beside the work."""
    with seen.db.read() as connection:
        found = guidelines.find(connection, seen.path["id"])
    if found is None:
        raise NotFound
    return render(
        seen,
        "guideline.html",
        title="Guidelines",
        guideline=found,
        html=guidelines.html(found.text),
    )


def questions(seen: Seen) -> Response:
    """Who labels and how they find it: answered once, kept apart from names and labels."""
    error = ""
    if seen.method == "POST":
        try:
            names = [question.name for question in survey.QUESTIONS]
            answers = {name: given for name in names if (given := seen.form.getlist(name))}
            survey.answer_survey(seen.db, seen.account, answers)
            return redirect("/?survey")
        except InstilError as refused:
            error = sentence(refused)
    return render(
        seen,
        "survey.html",
        422 if error else 200,
        title="Survey",
        questions=survey.QUESTIONS,
        given=seen.form,
        error=error,
    )


ROUTES = [
    page("/login", login, roles=PUBLIC, methods=("GET", "POST")),
    page("/invitations/{token}", invitation, roles=PUBLIC, methods=("GET", "POST")),
    action("/logout", logout, roles=ANYONE),
    page("/account", account, roles=ANYONE, methods=("GET", "POST")),
    page("/account/welcome", welcome, roles=ANYONE),
    page("/survey", questions, roles=LABELERS, methods=("GET", "POST")),
    page("/guidelines/{id}", guideline, roles=ANYONE),
]
