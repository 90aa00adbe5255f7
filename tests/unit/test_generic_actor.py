"""Class-based actors: what a class statement declares."""

from __future__ import annotations

import pytest

import greenq
from greenq import GenericActor
from greenq.brokers.stub import StubBroker


@pytest.fixture
def broker():
    broker = StubBroker()
    greenq.set_broker(broker)
    return broker


def test_a_class_statement_declares_an_actor_and_binds_the_name_to_an_instance(broker):
    class Add(GenericActor):
        """Adds."""

        def perform(self, x, y):
            return x + y

    assert isinstance(Add, GenericActor)
    assert Add(1, y=2) == 3
    assert broker.get_actor("Add") is Add.__actor__
    assert isinstance(Add.__actor__, greenq.Actor)
    assert Add.__actor__.fn is Add
    assert Add.__name__ == "Add"
    assert (Add.__doc__, Add.__actor__.__doc__) == ("Adds.", "Adds.")


def test_what_the_class_does_not_have_is_its_actors(broker):
    class Work(GenericActor):
        def perform(self, x):
            pass

    assert Work.actor_name == "Work"
    assert Work.queue_name == "default"
    assert Work.broker is broker
    assert Work.logger.name == f"{__name__}.Work"
    message = Work.send(1)
    assert (message.actor_name, message.args) == ("Work", (1,))
    assert Work.send_with_options(args=(1,), delay=10).queue_name == "default.DQ"
    assert [each.args for each in Work.send_many([(1,), (2,)])] == [(1,), (2,)]
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = Work.no_such_thing


def test_the_meta_class_holds_the_arguments_of_the_actor(broker):
    class Work(GenericActor):
        class Meta:
            actor_name = "other"
            queue_name = "q"
            priority = 3
            max_retries = 1
            _private = "not an option"

        def perform(self):
            pass

    assert (Work.actor_name, Work.queue_name, Work.priority, Work.options) == ("other", "q", 3, {"max_retries": 1})


def test_the_meta_class_may_name_a_lane(broker):
    class Crunch(greenq.GenericActor):
        class Meta:
            lane = "process"

        def perform(self):
            pass

    assert Crunch.lane == "process"

    with pytest.raises(ValueError, match="no lane"):

        class Wrong(greenq.GenericActor):
            class Meta:
                lane = "fast"


def test_an_unknown_option_is_an_error_at_the_class_statement(broker):
    with pytest.raises(ValueError, match="colour"):

        class Work(GenericActor):
            class Meta:
                colour = "green"


def test_an_abstract_class_is_no_actor_and_its_children_share_its_meta(broker):
    class Base(GenericActor):
        class Meta:
            abstract = True
            queue_name = "tasks"
            max_retries = 20

        def get_task_name(self):
            raise NotImplementedError

        def perform(self):
            return f"Hello from {self.get_task_name()}!"

    class Foo(Base):
        def get_task_name(self):
            return "Foo"

    class Bar(Base):
        def get_task_name(self):
            return "Bar"

    assert isinstance(Base, type)
    assert broker.get_declared_actors() == {"Foo", "Bar"}
    assert (Foo(), Bar()) == ("Hello from Foo!", "Hello from Bar!")
    assert (Foo.queue_name, Foo.options) == ("tasks", {"max_retries": 20})
    with pytest.raises(AttributeError, match="send"):
        _ = Base.send


def test_abstract_classes_may_be_derived_from_one_another(broker):
    class First(GenericActor):
        class Meta:
            abstract = True
            queue_name = "first"

    class Second(First):
        class Meta:
            abstract = True
            queue_name = "second"

    class Work(Second):
        def perform(self):
            return "done"

    assert broker.get_declared_actors() == {"Work"}
    assert Work.queue_name == "second"


def test_a_class_with_a_meta_of_its_own_takes_nothing_from_its_parents(broker):
    class Base(GenericActor):
        class Meta:
            abstract = True
            queue_name = "tasks"
            max_retries = 20

    class Work(Base):
        class Meta(Base.Meta):
            priority = 1

    assert (Work.queue_name, Work.priority, Work.options) == ("default", 1, {})


def test_an_actor_may_be_derived_from(broker):
    class Parent(GenericActor):
        class Meta:
            queue_name = "q"

        def perform(self):
            return f"done by {self.__name__}"

    class Child(Parent):
        pass

    assert (Parent(), Child()) == ("done by Parent", "done by Child")
    assert Child.queue_name == "q"
    assert Parent.__actor__ is not Child.__actor__
    assert broker.get_declared_actors() == {"Parent", "Child"}


def test_a_name_that_is_taken_is_refused(broker):
    class Parent(GenericActor):
        class Meta:
            actor_name = "work"

    with pytest.raises(ValueError, match="'work' is already declared"):

        class Child(Parent):
            pass


def test_an_actor_in_the_meta_class_declares_instead_of_the_decorator(broker):
    called_with = []

    def declare(instance, **options):
        called_with.append((instance, options))
        return greenq.actor(instance, **options) if not options else greenq.actor(**options)(instance)

    class Work(GenericActor):
        class Meta:
            actor = declare
            queue_name = "q"

        def perform(self):
            pass

    assert called_with == [(Work, {"queue_name": "q"})]
    assert Work.queue_name == "q"


def test_an_actor_without_perform_says_so_when_it_is_called(broker):
    class Idle(GenericActor):
        pass

    with pytest.raises(NotImplementedError, match=r"^Idle does not implement perform\(\)$"):
        Idle(1, two=2)


def test_an_unknown_attribute_of_the_base_class_is_an_attribute_error():
    with pytest.raises(AttributeError):
        _ = GenericActor.no_such_thing
    with pytest.raises(AttributeError):
        _ = GenericActor.send


def test_a_class_based_actor_is_accepted_as_a_callback(broker):
    class Done(GenericActor):
        def perform(self, message, result):
            pass

    @greenq.actor
    def work():
        pass

    assert work.message_with_options(on_success=Done).options == {"on_success": "Done"}


def test_an_async_perform_makes_an_async_actor(broker):
    class Work(GenericActor):
        async def perform(self):
            pass

    class Plain(GenericActor):
        def perform(self):
            pass

    assert Work.is_async
    assert not Plain.is_async
